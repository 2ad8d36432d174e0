-- Scheduled messages whose time has come go to their queues. Returns how many, and the next due time (ms) or nil.
local function promote(now, limit)
  local first = call('ZRANGE', P .. 'schedule', 0, 0, 'WITHSCORES')
  if not first[1] or tonumber(first[2]) > now then return 0, tonumber(first[2]) end
  local ids = call('ZRANGEBYSCORE', P .. 'schedule', '-inf', int(now), 'LIMIT', 0, limit)
  local values = call('HMGET', P .. 'messages', unpack(ids))
  local crashed = call('EXISTS', P .. 'crashes') == 1 and call('HMGET', P .. 'crashes', unpack(ids)) or {}
  begin_writes()
  call('ZREMRANGEBYRANK', P .. 'schedule', 0, #ids - 1) -- they are the first: cheaper than looking each up
  local queues, suspects = {}, {}
  for i, id in ipairs(ids) do
    if not values[i] then
      count('?', 'dangling')
    else
      local queue = head(values[i])
      if not queue then
        bury('unreadable', id, now, 'unreadable', '')
      else
        local to = crashed[i] and suspects or queues
        to[queue] = to[queue] or {}
        table.insert(to[queue], id)
        count(queue, 'scheduled', -1)
      end
    end
  end
  for queue, list in pairs(queues) do push(queue, list, now) end
  for queue, list in pairs(suspects) do push_suspects(queue, list, now) end
  local next_due = call('ZRANGE', P .. 'schedule', 0, 0, 'WITHSCORES')[2]
  return #ids, tonumber(next_due)
end
