--@include base
--@include held
--@include holder
-- Where a message is.
--
-- KEYS  1 prefix
-- ARGV  1 id
-- Returns {'result', result}, {'dead', value, reason and detail, time ms}, {'scheduled', value, due ms},
--       {'processing', value, since ms, what its worker is}, {'pending', value}, or {'unknown'}.
local id = ARGV[1]
local result = call('GET', P .. 'result:' .. id)
if result then return { 'result', result } end
local value = call('HGET', P .. 'messages', id)
if not value then return { 'unknown' } end
local reason = call('HGET', P .. 'reasons', id)
if reason then
  return { 'dead', value, reason, call('ZSCORE', P .. 'dead:' .. (head(value) or 'unreadable'), id) or '0' }
end
local due = call('ZSCORE', P .. 'schedule', id)
if due then return { 'scheduled', value, due } end
local inc, held = unpack(holders_of(id, 1))
if held then return { 'processing', value, select(3, taken_from(held)), call('HGET', P .. 'workers', inc) or '' } end
return { 'pending', value }
