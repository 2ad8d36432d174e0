--@include base
--@include types
--@include waiting
--@include ranked
-- A new incarnation, and the set of queues it serves.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 lease ms, 3 what it is (opaque), 4 set, 5 the set's queues joined by spaces
-- Returns 1.  Again: renews the same registration.
local inc, lease, set = ARGV[1], tonumber(ARGV[2]), ARGV[4]
local now = clock()

-- Queues are served together as they never were: the workers are told of the lines there are at gates.
local function announce_lines()
  local waiters, queues = call('HGETALL', P .. 'gates'), ' ' .. ARGV[5] .. ' '
  for i = 1, #waiters, 2 do
    for who in string.gmatch(waiters[i + 1], '%S+') do
      if find(queues, ' ' .. who .. ' ', 1, true) then announce(who, now, waiters[i]) end
    end
  end
end

expect_common()
expect('hash', { 'sets' })
expect('zset', { 'set-leases' })
begin_writes()
call('ZADD', P .. 'leases', int(now + lease), inc)
call('HSETNX', P .. 'calls', inc, 0)
call('HSET', P .. 'workers', inc, ARGV[3])
if set ~= '' then
  call('ZADD', P .. 'set-leases', int(now + lease), set)
  local is_new = call('HSETNX', P .. 'sets', set, ARGV[5]) == 1
  if is_new then
    for queue in string.gmatch(ARGV[5], '%S+') do
      local sets = call('HGET', P .. 'serving', queue)
      call('HSET', P .. 'serving', queue, sets and sets .. ' ' .. set or set)
    end
  end
  for queue in string.gmatch(ARGV[5], '%S+') do
    if waiting(queue) > 0 then announce(queue, now) end
    if call('LLEN', P .. 'suspects:' .. queue) > 0 then announce_suspects(queue, now) end
  end
  if is_new then announce_lines() end
end
return 1
