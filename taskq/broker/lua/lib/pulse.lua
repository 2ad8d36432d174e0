-- The pulse: the server time of the last renewal or reaping by anybody. If it is older than half a lease nobody
-- could renew (the server was away, a snapshot was restored, the clock jumped), so every lease that has ended or
-- is about to gets one fresh lease first. If it lies in the future the clock went back: leases are clamped.
-- Both hold for incarnations and for the sets of queues they serve: a worker that lives on must not lose its set.

-- The clock went back: what was to last some seconds from then on does not last longer for it. What was said by the time
-- of day stays (schedules, ticks, timed pauses).
local function set_back(by)
  for _, key in ipairs({ P .. 'openings', P .. 'arrivals', P .. 'shut' }) do
    local times = call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #times, 2 do
      if string.sub(times[i], 1, 1) ~= '=' then call('ZINCRBY', key, -by, times[i]) end
    end
  end
  local breakers = call('HGETALL', P .. 'breakers')
  for i = 1, #breakers, 2 do
    local mode, time, outcomes = string.match(breakers[i + 1], '^([co]) (%d+)(.*)$')
    if mode then call('HSET', P .. 'breakers', breakers[i], mode .. ' ' .. int(math.max(time - by, 0)) .. outcomes) end
  end
end

local function pulse(now, lease)
  local last = tonumber(call('GET', P .. 'pulse') or '0')
  begin_writes()
  if last - now >= 1000 then set_back(int(last - now)) end -- less is not worth a walk, and may be the rounding of the last
  for _, leases in ipairs({ P .. 'leases', P .. 'set-leases' }) do
    local wrong = {}
    if last > now then
      wrong = call('ZRANGEBYSCORE', leases, '(' .. int(now + lease), '+inf', 'LIMIT', 0, 1000)
    elseif now - last > lease / 2 then
      wrong = call('ZRANGEBYSCORE', leases, '-inf', int(now + lease / 2), 'LIMIT', 0, 1000)
    end
    for _, who in ipairs(wrong) do call('ZADD', leases, 'XX', int(now + lease), who) end
  end
  call('SET', P .. 'pulse', int(now))
end
