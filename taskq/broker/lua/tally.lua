--@include base
--@include sizes
--@include gated
-- Count the messages, and the ids in the places: the two numbers must be equal.
--
-- KEYS  1 prefix
-- ARGV all queues
-- Returns {messages, ids in places, then the keys (after the prefix) in which ids of the queues stand, except lines}.
-- Again: the same.
local placed, out = call('ZCARD', P .. 'schedule'), {}
for family, command in pairs({ queue = 'LLEN', suspects = 'LLEN', ranked = 'ZCARD', dead = 'ZCARD' }) do
  for queue, n in pairs(sizes(family, command, ARGV)) do
    placed = placed + n
    out[#out + 1] = family .. ':' .. queue
  end
end
for _, n in pairs(sizes('processing', 'HLEN', call('ZRANGE', P .. 'leases', 0, -1))) do placed = placed + n end
local lines, n_lines = in_lines()
placed = placed + (n_lines or 0)
for i = 1, lines and 0 or #ARGV do
  placed = placed + (tonumber(call('HGET', P .. 'counters', ARGV[i] .. '|gated') or 0) or 0)
end
table.insert(out, 1, placed)
table.insert(out, 1, call('HLEN', P .. 'messages'))
return out
