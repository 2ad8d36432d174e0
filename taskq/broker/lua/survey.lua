--@include base
--@include held
--@include waiting
--@include ranked
-- What there is, per queue: the ledger and its places, at one instant.
--
-- KEYS  1 prefix
-- Returns {counters (field, value, ...), {queue, pending, suspects, dead, paused text or '', ...}, {queue of each held, ...}}.
local fields = call('HGETALL', P .. 'counters')
local seen, places, held = {}, {}, {}
for i = 1, #fields, 2 do
  local queue = string.match(fields[i], '^(.*)|')
  if queue and not seen[queue] then
    seen[queue] = true
    places[#places + 1] = queue
    places[#places + 1] = waiting(queue)
    places[#places + 1] = call('LLEN', P .. 'suspects:' .. queue)
    places[#places + 1] = call('ZCARD', P .. 'dead:' .. queue)
    places[#places + 1] = call('HGET', P .. 'paused', queue) or ''
  end
end
for _, inc in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
  for _, value in ipairs(call('HVALS', P .. 'processing:' .. inc)) do held[#held + 1] = (taken_from(value)) end
end
return { fields, places, held }
