--@include base
--@include held
--@include sizes
-- The ledger and the places of each queue, at one instant.
--
-- KEYS  1 prefix
-- ARGV queues to look at besides those with any counter
-- Returns {counters (field, value, ...), {queue, pending, suspects, dead, paused text or '', ...} of those with any of it,
--       {queue, how many are held, ...}}.
-- Again: the same.
local fields = call('HGETALL', P .. 'counters')
local names, seen = {}, {}
for i = 1, #fields, 2 do
  local queue = string.match(fields[i], '^(.*)|')
  if queue and not seen[queue] then names[#names + 1], seen[queue] = queue, true end
end
for _, queue in ipairs(ARGV) do
  if not seen[queue] then names[#names + 1], seen[queue] = queue, true end
end
local paused, flat = {}, call('HGETALL', P .. 'paused')
for i = 1, #flat, 2 do paused[flat[i]] = flat[i + 1] end

local waits, ranked, suspects, dead =
  sizes('queue', 'LLEN', names), sizes('ranked', 'ZCARD', names), sizes('suspects', 'LLEN', names), sizes('dead', 'ZCARD', names)
local places = {}
for _, queue in ipairs(names) do
  if waits[queue] or ranked[queue] or suspects[queue] or dead[queue] or paused[queue] then
    local n = #places
    places[n + 1], places[n + 2] = queue, (waits[queue] or 0) + (ranked[queue] or 0)
    places[n + 3], places[n + 4], places[n + 5] = suspects[queue] or 0, dead[queue] or 0, paused[queue] or ''
  end
end

local held, out = {}, {}
for _, inc in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
  for _, value in ipairs(call('HVALS', P .. 'processing:' .. inc)) do
    local queue = taken_from(value)
    held[queue] = (held[queue] or 0) + 1
  end
end
for queue, n in pairs(held) do out[#out + 1], out[#out + 2] = queue, n end
return { fields, places, out }
