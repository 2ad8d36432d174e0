--@include base
--@include sizes
-- How long the next message of each queue has waited: of those that wait in turn, and of the suspects. Reads only.
--
-- KEYS  1 prefix
-- ARGV  queues
-- Returns {queue, ms since the oldest of the next ones was accepted, ...} for queues in which any waits.
-- Again: the same.
local now, found, out = clock(), {}, {}
local function look(family, command, first_of)
  for queue in pairs(sizes(family, command, ARGV)) do
    local _, _, accepted = head(call('HGET', P .. 'messages', first_of(P .. family .. ':' .. queue)))
    if accepted then found[queue] = math.max(found[queue] or 0, now - accepted) end
  end
end
local function first(key) return call('LINDEX', key, 0) end
look('queue', 'LLEN', first)
look('suspects', 'LLEN', first)
look('ranked', 'ZCARD', function(key) return call('ZRANGE', key, 0, 0)[1] end)
for queue, age in pairs(found) do out[#out + 1], out[#out + 2] = queue, int(age) end
return out
