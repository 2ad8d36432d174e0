-- The pulse: the server time of the last renewal or reaping by anybody. If it is older than half a lease nobody
-- could renew (the server was away, a snapshot was restored, the clock jumped), so every lease that has ended or
-- is about to gets one fresh lease first. If it lies in the future the clock went back: leases are clamped.
-- Both hold for incarnations and for the sets of queues they serve: a worker that lives on must not lose its set.
-- Leases differ in length while settings change, so each incarnation's is kept (`terms`), and what all share
-- takes the longest: no lease is cut to the length of another.

-- Make times of a sorted set earlier, except those that stay. A page at a time: what was moved stands among what was looked
-- at. At most the earliest 100,000; the rest are far off.
local function move(key, by, stays)
  for first = 0, 99000, 1000 do
    local times, moved = call('ZRANGE', P .. key, first, first + 999, 'WITHSCORES'), {}
    for i = 1, #times, 2 do
      if not stays(times[i], times[i + 1]) then moved[#moved + 1], moved[#moved + 2] = string.format('%.3f', times[i + 1] - by), times[i] end
    end
    for i = 1, #moved, 1000 do call('ZADD', P .. key, unpack(moved, i, math.min(i + 999, #moved))) end
    if #times < 2000 then return end
  end
end

-- The clock went back: what should last some seconds does not last longer because of that. What was set by the time of day
-- stays (etas, ticks, timed pauses). Locks are kept by a clock that does not go back: see unique.lua.
local function set_back(by)
  call('INCRBY', P .. 'set-back', by)
  call('DEL', P .. 'keeper')
  local left = call('PTTL', P .. 'audited')
  if left > 0 then call('PEXPIRE', P .. 'audited', int(math.max(left - by, 1))) end
  move('schedule', by, function(_, due) return due % 1 ~= 0 end) -- an eta ends in half a millisecond
  for _, key in ipairs({ 'openings', 'arrivals', 'shut' }) do
    move(key, by, function(name) return string.sub(name, 1, 1) == '=' end) -- a pause
  end
  if call('LLEN', P .. 'alarm') == 0 then call('RPUSH', P .. 'alarm', '1') end -- something else may be the next
  local breakers = call('HGETALL', P .. 'breakers')
  for i = 1, #breakers, 2 do
    local mode, time, outcomes = string.match(breakers[i + 1], '^([co]) (%d+)(.*)$')
    if mode then call('HSET', P .. 'breakers', breakers[i], mode .. ' ' .. int(math.max(time - by, 0)) .. outcomes) end
  end
end

-- The length (ms) of the shortest lease (rank 0) or the longest (-1). One whose incarnation is gone is dropped.
local function term(rank, default)
  for _ = 1, 10 do
    local found = call('ZRANGE', P .. 'terms', rank, rank, 'WITHSCORES')
    if not found[1] then return default end
    if call('ZSCORE', P .. 'leases', found[1]) then return tonumber(found[2]) end
    call('ZREM', P .. 'terms', found[1])
  end
  return default
end

-- Let the leases of a sorted set whose end lies from `low` to `high` end one lease from now, where `wrong` says so of its
-- end and its length.
local function put_right(leases, low, high, now, length_of, wrong)
  local found = call('ZRANGEBYSCORE', leases, low, high, 'WITHSCORES', 'LIMIT', 0, 1000)
  for i = 1, #found, 2 do
    local length = length_of(found[i])
    if wrong(tonumber(found[i + 1]), length) then call('ZADD', leases, 'XX', int(now + length), found[i]) end
  end
end

-- `lease` is used for an incarnation that did not say its own. Returns the shortest and the longest lease.
local function pulse(now, lease)
  local last = tonumber(call('GET', P .. 'pulse') or '') or 0
  begin_writes()
  local shortest, longest = term(0, lease), term(-1, lease)
  local back = last - now >= 1000 -- less is not worth a walk, and may be the rounding of the last
  if back then set_back(int(last - now)) end
  local function own(inc) return tonumber(call('ZSCORE', P .. 'terms', inc)) or lease end
  for leases, length_of in pairs({ [P .. 'leases'] = own, [P .. 'set-leases'] = function() return longest end }) do
    if back then
      put_right(leases, '(' .. int(now + shortest), '+inf', now, length_of, function(ends, length)
        return ends > now + length
      end)
    elseif now - last > shortest / 2 then
      put_right(leases, '-inf', int(now + longest / 2), now, length_of, function(ends, length)
        return now - last > length / 2 and ends <= now + length / 2
      end)
    end
  end
  call('SET', P .. 'pulse', int(now))
  return shortest, longest
end
