-- Periodic entries: putting one in place, taking one away.

-- The process that sends ticks works out the first one, so the entry is due at once. A tick that is due already stays,
-- and is sent as the entry is now. A paused entry stays paused.
local function put_entry(name, entry, origin, now)
  local key = P .. 'entry:' .. name
  local due = call('HGET', key, 'waits') or call('ZSCORE', P .. 'ticks', name)
  call('HSET', P .. 'periodic', name, entry)
  call('HSET', key, 'origin', origin)
  if call('HEXISTS', key, 'paused') == 1 or (due and tonumber(due) <= now) then return end
  call('HDEL', key, 'tick')
  call('ZADD', P .. 'ticks', int(now), name)
  ring(P .. 'alarm')
end

local function remove_entry(name)
  call('HDEL', P .. 'periodic', name)
  call('ZREM', P .. 'ticks', name)
  call('DEL', P .. 'entry:' .. name)
end
