-- The pulse: the server time of the last renewal or reaping by anybody. If it is older than half a lease nobody
-- could renew (the server was away, a snapshot was restored, the clock jumped), so every lease that has ended or
-- is about to gets one fresh lease first. If it lies in the future the clock went back: leases are clamped.
-- Both hold for incarnations and for the sets of queues they serve: a worker that lives on must not lose its set.
local function pulse(now, lease)
  local last = tonumber(call('GET', P .. 'pulse') or '0')
  begin_writes()
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
