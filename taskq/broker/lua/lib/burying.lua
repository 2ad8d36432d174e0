-- Dead letters: messages that are kept although they do not run any more.

-- Delete them; one that is on its way to another partition is carried there no longer.
local function purged(queue, ids)
  call('ZREM', P .. 'dead:' .. queue, unpack(ids))
  try('HDEL', P .. 'onward', unpack(ids))
  call('HDEL', P .. 'reasons', unpack(ids))
  ended(queue, ids, 'purged')
end

-- Keep a message as a dead letter; the oldest of its queue go when there are more than dead_max.
-- `detail` is opaque to scripts.
local function bury(queue, id, now, reason, detail)
  local key = P .. 'dead:' .. queue
  call('HDEL', P .. 'crashes', id)
  call('ZADD', key, int(now), id)
  call('HSET', P .. 'reasons', id, reason .. '\n' .. detail)
  count(queue, 'died', 1)
  local excess = call('ZCARD', key) - (setting('dead_max') or 100000)
  if excess > 0 then purged(queue, call('ZRANGE', key, 0, math.min(excess, 100) - 1)) end
end
