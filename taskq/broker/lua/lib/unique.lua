-- Unique work: a lock of a task and a key, held by the id of a message. It counts only while that message is alive and no
-- dead letter, so one whose message has gone holds nobody. In a head (letter u): mode (s until its start, d until it is
-- done, t for a time, whatever becomes of it), ms it counts at most (0: no limit), colon, lock.

local function lock_in(text)
  local mode, ms, lock = string.match(text, '^(%a)(%d+):(.*)$')
  return lock, mode, tonumber(ms)
end

local function alive(id)
  return call('HEXISTS', P .. 'messages', id) == 1 and call('HEXISTS', P .. 'reasons', id) == 0
end

-- The id that holds a lock, or nil.
local function holder(lock, mode, now)
  local ends, id = string.match(call('HGET', P .. 'unique', lock) or '', '^(%d+) (.*)$')
  if not id or (ends ~= '0' and now >= tonumber(ends)) then return nil end
  return (mode == 't' or alive(id)) and id or nil
end

-- A lock that holds nobody any more only takes room. Whoever takes n new ones looks at twice as many, at random, so that
-- there are hardly ever more of these than of the others.
local function sweep_locks(n, now)
  local some = n > 0 and call('HRANDFIELD', P .. 'unique', 2 * n, 'WITHVALUES') or {}
  for i = 1, #some, 2 do
    local ends, id = string.match(some[i + 1], '^(%d+) (.*)$')
    if ends == '0' and not alive(id) or ends ~= '0' and now >= tonumber(ends) then call('HDEL', P .. 'unique', some[i]) end
  end
end

local function take_lock(lock, ms, id, now)
  call('HSET', P .. 'unique', lock, (ms > 0 and int(now + ms) or '0') .. ' ' .. id)
end

local function unlock(text, id)
  local lock = lock_in(text)
  local held = call('HGET', P .. 'unique', lock)
  if held and string.match(held, '^%d+ (.*)$') == id then call('HDEL', P .. 'unique', lock) end
end

-- A message goes back to where it waits: whether its lock is its own (again).
local function lock_again(text, id, now)
  local lock, mode, ms = lock_in(text)
  local by = holder(lock, mode, now)
  if by and by ~= id then return mode ~= 's' end
  take_lock(lock, ms, id, now)
  return true
end
