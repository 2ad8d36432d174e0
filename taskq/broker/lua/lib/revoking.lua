-- The end of revoked messages. One that ran when it was revoked, or waited where it is not quickly found, is marked; the
-- mark stays with the message whatever happens: if the task returns a value, that counts; anything else is its end.
local any_revoked = call('HLEN', P .. 'revoked') > 0

local function told_why(why) return 'revoked' .. (why ~= '' and '\n' .. why or '') end

-- End a message that is marked, which has just left its place: 'done' if it ran, 'discarded' if it did not. Returns whether
-- it was marked. With its `value` its lock goes too (that of one that was held goes with the delivery).
local function end_revoked(queue, id, counter, value)
  local why = any_revoked and call('HGET', P .. 'revoked', id)
  if not why then return false end
  discard(queue, id, counter, told_why(why))
  local _, _, _, flags, at = head(value)
  local text = extras(value, flags or 0, at)[$FIELD_LOCK]
  if text then release(lock_in(text), clock()) end
  return true
end
