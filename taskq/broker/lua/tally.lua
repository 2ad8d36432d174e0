--@include base
--@include sizes
-- Compare how many messages there are with how many ids stand in places: by the conservation law they are as many.
--
-- KEYS  1 prefix
-- ARGV  every queue there is
-- Returns {messages, ids in places, then the keys (after the prefix) in which those of the queues stand, but for lines}.
-- Again: the same.
local placed, out = call('ZCARD', P .. 'schedule'), {}
for family, command in pairs({ queue = 'LLEN', suspects = 'LLEN', ranked = 'ZCARD', dead = 'ZCARD' }) do
  for queue, n in pairs(sizes(family, command, ARGV)) do
    placed = placed + n
    out[#out + 1] = family .. ':' .. queue
  end
end
for _, n in pairs(sizes('processing', 'HLEN', call('ZRANGE', P .. 'leases', 0, -1))) do placed = placed + n end
local fields = {}
for i, queue in ipairs(ARGV) do fields[i] = queue .. '|gated' end
for first = 1, #fields, 1000 do
  for _, n in ipairs(call('HMGET', P .. 'counters', unpack(fields, first, math.min(first + 999, #fields)))) do
    placed = placed + (tonumber(n or 0) or 0)
  end
end
table.insert(out, 1, placed)
table.insert(out, 1, call('HLEN', P .. 'messages'))
return out
