--@include base
--@include types
--@include bells
--@include waiting
--@include ranked
--@include serving
-- A new incarnation, and the set of queues it serves.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 lease ms, 3 what it is (opaque), 4 set, 5 the set's queues joined by spaces,
--       6 when its worker's announcement was made (ms, as publish_tasks.lua said; '' for none)
-- Returns 1; or 0, changing nothing, if that announcement is not in force: the server lost it, and with it the limits of
--       tasks. Again: renews the same registration.
local inc, lease, set, announced = ARGV[1], tonumber(ARGV[2]), ARGV[4], tonumber(ARGV[6] or '')
if announced and (tonumber(call('HGET', P .. 'published', '=') or '') or 0) < announced then return 0 end
local now = clock()
expect_common()
expect('hash', { 'sets' })
expect('zset', { 'set-leases', 'terms' })
begin_writes()
call('ZADD', P .. 'leases', int(now + lease), inc)
call('ZADD', P .. 'terms', lease, inc)
call('HSETNX', P .. 'calls', inc, 0)
call('HSET', P .. 'workers', inc, ARGV[3])
if set ~= '' then
  local is_new = serve(set, ARGV[5], now + lease)
  tell_what_waits(ARGV[5], now)
  if is_new then tell_of_lines(ARGV[5], now) end
end
return 1
