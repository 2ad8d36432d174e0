-- Unique work: a lock of a task and a key, held by the id of a message. It counts only while that message is alive, is no
-- dead letter, and has not expired unrun, so the lock of a message that is gone blocks nobody. In a head (letter u): mode
-- (s until its start, d until it is done, t for a time, whatever becomes of it), ms it counts at most (0: no limit),
-- colon, lock.

--@include expiry
local function lock_in(text)
  local mode, ms, lock = string.match(text, '^(%a)(%d+):(.*)$')
  return lock or '', mode, tonumber(ms) or 0
end

local function alive(id, now)
  local value = call('HGET', P .. 'messages', id)
  return value and call('HEXISTS', P .. 'reasons', id) == 0 and not expired(id, value, now)
end

-- The server's clock, as if it had never been set back: locks that count for a time go by this one.
local function steady(now) return now + tonumber(call('GET', P .. 'set-back') or '0') end

-- The id that holds a lock, or nil. (The lock of a throttled call without a time: an earlier version's; it expires.)
local function holder(lock, mode, now)
  local held = mode == 't' and call('GET', P .. 'throttle:' .. lock) or mode ~= 't' and call('HGET', P .. 'unique', lock)
  local ends, id = string.match(held or '', '^(%d+) (.*)$')
  if not id then return mode == 't' and held or nil end
  if ends ~= '0' and steady(now) >= tonumber(ends) then return nil end
  return (mode == 't' or alive(id, now)) and id or nil
end

local function take_lock(lock, mode, ms, id, now)
  local value = (ms > 0 and int(steady(now) + ms) or '0') .. ' ' .. id
  if mode == 't' then call('SET', P .. 'throttle:' .. lock, value, 'PX', int(ms)) else call('HSET', P .. 'unique', lock, value) end
end

-- A message has ended, or may have: its lock goes if it has.
local function release(lock, now)
  if not holder(lock, 'd', now) then call('HDEL', P .. 'unique', lock) end
end

local function unlock(lock, id)
  local held = call('HGET', P .. 'unique', lock)
  if held and string.match(held, '^%d+ (.*)$') == id then call('HDEL', P .. 'unique', lock) end
end

-- A message goes back to where it waits: whether it has its lock. One that is unique until its start takes it again;
-- a debounced one if it can, so that the next call may replace it.
local function lock_again(found, id, now)
  local lock, mode, ms = lock_in(found[$FIELD_LOCK])
  if mode ~= 's' and not found[$FIELD_DEBOUNCE] then return true end
  if (holder(lock, mode, now) or id) ~= id then return mode ~= 's' end
  take_lock(lock, mode, ms, id, now)
  return true
end
