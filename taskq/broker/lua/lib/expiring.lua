-- The end of messages that have expired before they began.

-- End a message that has just left its place if its time to run is over: it uses up nothing. Returns whether it was over.
local function end_expired(queue, id, value, now)
  if not is_over(value, now) then return false end
  local _, _, _, flags, at = head(value)
  discard(queue, id, 'discarded', 'expired')
  local text = extras(value, flags, at)[$FIELD_LOCK]
  if text then release(lock_in(text), now) end
  return true
end
