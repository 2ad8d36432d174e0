-- Sets of queues that workers serve: register or repair one, and tell it what waits.

-- A worker serves a set until `ends` at least; another worker may for longer. Returns whether anything of it was missing;
-- with `only` (joined by spaces) that is asked of these queues alone.
local function serve(set, queues, ends, only)
  local missing = call('HSETNX', P .. 'sets', set, queues) == 1
  for queue in string.gmatch(only or queues, '%S+') do
    local sets = call('HGET', P .. 'serving', queue)
    if not find(' ' .. (sets or '') .. ' ', ' ' .. set .. ' ', 1, true) then
      call('HSET', P .. 'serving', queue, sets and sets .. ' ' .. set or set)
      missing = true
    end
  end
  call('ZADD', P .. 'set-leases', 'GT', int(ends), set)
  return missing
end

local function tell_what_waits(queues, now)
  for queue in string.gmatch(queues, '%S+') do
    if waiting(queue) > 0 then announce(queue, now) end
    if call('LLEN', P .. 'suspects:' .. queue) > 0 then announce_suspects(queue, now) end
  end
end

-- These queues are served together for the first time: tell the workers of the lines that wait at gates.
local function tell_of_lines(queues, now)
  local waiters, told = call('HGETALL', P .. 'gates'), 0
  for i = 1, #waiters, 2 do
    for who in string.gmatch(waiters[i + 1], '%S+') do
      if find(' ' .. queues .. ' ', ' ' .. who .. ' ', 1, true) then
        told = told + 1
        if told <= 200 then announce(who, now, waiters[i]) else call('ZADD', P .. 'openings', int(now), waiters[i]) end
      end
    end
  end
  if told > 200 then ring(P .. 'alarm') end -- the rest a few at a time, as if their time had come
end
