--@include base
--@include types
--@include holder
--@include bells
--@include waiting
--@include ranked
--@include unique
-- Give unique messages the lock that they should have, if nobody has it. One that is unique until its start may have
-- begun before, and wait for another run: nothing here says so. It gets its lock again until that run, and is not
-- counted. Where the clock has been set back nobody knows whether the time of a lock is over: it is left alone.
--
-- KEYS  1 prefix
-- ARGV  ids
-- Returns how many got a lock that they should never have been without.
-- Again: 0.
local now, given = clock(), 0
expect('hash', { 'messages', 'reasons', 'revoked', 'unique', 'marks' })

local function ought_to_have(id, lock, mode)
  if mode == 't' or not alive(id, now) or call('HEXISTS', P .. 'revoked', id) == 1 then return false end
  local held = call('HGET', P .. 'unique', lock)
  if held and string.match(held, '^%d+ (.*)$') == id then return false end -- it has it, or had it for its time
  return mode == 'd' or #holders_of(id, 1) == 0
end

begin_writes()
for _, id in ipairs(ARGV) do
  local value = call('HGET', P .. 'messages', id)
  local _, _, accepted, flags, at = head(value)
  local found = flags and extras(value, flags, at) or {}
  -- A debounced call that has begun has no lock, and the next one needs none.
  local text = not found[$FIELD_DEBOUNCE] and found[$FIELD_LOCK]
  if text then
    local lock, mode, ms = lock_in(text)
    local left = ms > 0 and accepted + ms - now or 0
    if left >= 0 and (ms == 0 or steady(now) == now) and ought_to_have(id, lock, mode) and not holder(lock, mode, now) then
      take_lock(lock, mode, left, id, now)
      if mode == 'd' then given = given + 1 end
    end
  end
end
return given
