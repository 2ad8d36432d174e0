-- Scheduled messages whose time has come go to their queues, gates whose time has come open. Returns how many messages,
-- and the next time (ms) at which something is due, or nil.

-- Returns the next time at which a gate opens or a pause is over, or nil.
local function open_due(now)
  local next_one = tonumber(call('ZRANGE', P .. 'openings', 0, 0, 'WITHSCORES')[2])
  if not next_one or next_one > now then return next_one end
  local due = call('ZRANGEBYSCORE', P .. 'openings', '-inf', int(now), 'LIMIT', 0, 50)
  begin_writes()
  call('ZREM', P .. 'openings', unpack(due))
  call('ZREMRANGEBYSCORE', P .. 'arrivals', '-inf', int(now - 1))
  if call('ZREMRANGEBYSCORE', P .. 'shut', '-inf', int(now - 1)) > 0 then watch_controls() end
  for _, name in ipairs(due) do
    if sub(name, 1, 1) == '=' then resume(sub(name, 2), now) else open(name, now) end
  end
  return tonumber(call('ZRANGE', P .. 'openings', 0, 0, 'WITHSCORES')[2])
end

local function promote(now, limit)
  local opens = open_due(now)
  local first = tonumber(call('ZRANGE', P .. 'schedule', 0, 0, 'WITHSCORES')[2])
  if not first or first > now then return 0, first and opens and math.min(first, opens) or first or opens end
  local ids = call('ZRANGEBYSCORE', P .. 'schedule', '-inf', int(math.ceil(now)), 'LIMIT', 0, limit)
  local values = call('HMGET', P .. 'messages', unpack(ids))
  local crashed = call('EXISTS', P .. 'crashes') == 1 and call('HMGET', P .. 'crashes', unpack(ids)) or {}
  local queues, suspects, unreadable = {}, {}, {}
  for i, id in ipairs(ids) do
    local queue, to = head(values[i]), crashed[i] and suspects or queues
    if queue then
      to[queue] = to[queue] or {}
      table.insert(to[queue], id)
    elseif values[i] then -- else whose it was is found by the audit
      unreadable[#unreadable + 1] = id
    end
  end
  for queue in pairs(queues) do call('LLEN', P .. 'queue:' .. queue) end -- before the first write, for the sake of the types
  for queue in pairs(suspects) do call('LLEN', P .. 'suspects:' .. queue) end
  begin_writes()
  call('ZREMRANGEBYRANK', P .. 'schedule', 0, #ids - 1) -- they are the first: cheaper than looking each up
  for _, id in ipairs(unreadable) do bury('unreadable', id, now, 'unreadable', '') end
  for queue, list in pairs(queues) do
    count(queue, 'scheduled', -#list);
    (marks(queue) == '' and push or offer)(queue, list, now)
  end
  for queue, list in pairs(suspects) do
    count(queue, 'scheduled', -#list)
    push_suspects(queue, list, now)
  end
  local next_due = tonumber(call('ZRANGE', P .. 'schedule', 0, 0, 'WITHSCORES')[2])
  return #ids, next_due and opens and math.min(next_due, opens) or next_due or opens
end
