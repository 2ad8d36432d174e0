-- A message that goes from one queue to another of this partition, whose queue its head names by now.
local function moved(queue, to, value)
  local _, task, _, flags, at = head(value)
  local found = extras(value, flags, at)
  count(queue, 'moved')
  count(to, 'accepted')
  if found[$FIELD_PRIORITY] or found[$FIELD_FAIR] then mark(to, $MARK_RANKED, true) end
  if found[$FIELD_LIMITED] then mark(to, $MARK_LIMITED, true) end
  if call('HGET', P .. 'tasks', task) ~= to then
    call('HSET', P .. 'guests', to .. '|' .. task, 1)
    if has_flag(flags, $FLAG_AT_MOST_ONCE) then mark(to, $MARK_ONCE, true) end -- from their own queue workers take one at a time
  end
end
