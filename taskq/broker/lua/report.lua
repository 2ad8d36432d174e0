--@include base
--@include types
-- Keep the report of a worker on how it is. A worker that has not reported for a while, or says that it ends, is
-- forgotten.
--
-- KEYS  1 prefix
-- ARGV  1 the worker's id, 2 ms for which the report holds, 3 how it is (opaque; '' if it ends)
-- Returns how many workers were forgotten.
-- Again: the report holds for longer; or the worker is forgotten already.
local id, now = ARGV[1], clock()
expect('hash', { 'fleet' })
expect('zset', { 'fleet-ends' })
begin_writes()
local gone = call('ZRANGEBYSCORE', P .. 'fleet-ends', '-inf', int(now), 'LIMIT', 0, 100)
if ARGV[3] == '' then gone[#gone + 1] = id end
for _, one in ipairs(gone) do
  call('ZREM', P .. 'fleet-ends', one)
  call('HDEL', P .. 'fleet', one)
end
if ARGV[3] ~= '' then
  call('ZADD', P .. 'fleet-ends', int(now + tonumber(ARGV[2])), id)
  call('HSET', P .. 'fleet', id, ARGV[3])
end
return #gone
