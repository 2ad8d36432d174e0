-- The end of a message: its result, those who wait for it, its dead letter.

local no_room = false -- true where memory is too scarce for results to be kept (fetch.lua)

-- Store a result ('' for none) and hand it to whoever waits. `waiting` says whether anybody does.
local function publish(id, result, ttl, waiting)
  if result ~= '' and not no_room then call('SET', P .. 'result:' .. id, result, 'PX', ttl) end
  if not waiting then return end
  local inboxes = call('HGET', P .. 'waiters', id)
  if not inboxes then return end
  call('HDEL', P .. 'waiters', id)
  for inbox in string.gmatch(inboxes, '%S+') do
    local key = P .. 'inbox:' .. inbox
    call('RPUSH', key, struct.pack('B', #id) .. id .. result)
    call('PEXPIRE', key, 60000)
  end
end

local function anybody_waits() return call('HLEN', P .. 'waiters') > 0 end

-- Keep a message as a dead letter; the oldest of its queue go when there are more than dead_max.
-- `detail` is opaque to scripts.
local function bury(queue, id, now, reason, detail)
  local key = P .. 'dead:' .. queue
  call('HDEL', P .. 'crashes', id)
  call('ZADD', key, int(now), id)
  call('HSET', P .. 'reasons', id, reason .. '\n' .. detail)
  count(queue, 'died', 1)
  local excess = call('ZCARD', key) - (setting('dead_max') or 100000)
  if excess > 0 then
    local old = call('ZRANGE', key, 0, math.min(excess, 100) - 1)
    call('ZREM', key, unpack(old))
    call('HDEL', P .. 'reasons', unpack(old))
    call('HDEL', P .. 'messages', unpack(old))
    count(queue, 'purged', #old)
  end
end
