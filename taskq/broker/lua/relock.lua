--@include base
--@include types
--@include holder
--@include waiting
--@include ranked
--@include unique
-- Give messages that are unique work the lock that they ought to have and that nobody has. Whether one that is unique until
-- its start has begun before, and waits for another run without its lock, nobody knows here: it may have it again, until that
-- run; but nothing was wrong.
--
-- KEYS  1 prefix
-- ARGV  ids
-- Returns how many got it that were without it by no rule.
-- Again: 0.
local now, given = clock(), 0
expect('hash', { 'messages', 'reasons', 'revoked', 'unique', 'marks' })

local function ought_to_have(id, mode)
  if mode == 't' or not alive(id, now) or call('HEXISTS', P .. 'revoked', id) == 1 then return false end
  return mode == 'd' or #holders_of(id, 1) == 0
end

begin_writes()
for _, id in ipairs(ARGV) do
  local value = call('HGET', P .. 'messages', id)
  local _, _, accepted, flags, at = head(value)
  local found = flags and extras(value, flags, at) or {}
  local text = not found.d and found.u -- a debounced call that has begun has none, and the next one needs none
  if text then
    local lock, mode, ms = lock_in(text)
    local left = ms > 0 and accepted + ms - now or 0
    if left >= 0 and ought_to_have(id, mode) and not holder(lock, mode, now) then
      take_lock(lock, mode, left, id, now)
      if mode == 'd' then given = given + 1 end
    end
  end
end
return given
