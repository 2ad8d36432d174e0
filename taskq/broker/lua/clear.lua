--@include base
--@include types
--@include holder
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include unique
--@include gates
-- Delete some of the messages that wait in a queue or in one of its lines. Callers that wait for a result are told.
--
-- KEYS  1 prefix
-- ARGV  1 queue, 2 line ('' for what waits in turn and the suspects), 3 how many at most (1 to 500)
-- Returns how many were deleted.
-- Again: takes the next ones.
local queue, line, left, gone = ARGV[1], ARGV[2], tonumber(ARGV[3]), 0
expect_common()
expect_queue(queue)
if line ~= '' then
  expect('list', { 'gated:' .. queue .. '|' .. line })
  expect('zset', { 'ranked:' .. queue .. '|' .. line })
end
begin_writes()

local function end_it(id)
  gone, left = gone + 1, left - 1
  if line ~= '' then count(queue, 'gated', -1) end
  local value = call('HGET', P .. 'messages', id)
  if not value then return count(queue, 'dangling') end
  local _, _, _, flags, at = head(value)
  local lock = extras(value, flags or 0, at)[$FIELD_LOCK]
  if lock then unlock((lock_in(lock)), id) end
  discard(queue, id, 'purged', 'purged')
end

local function empty_list(key)
  for _, id in ipairs(left > 0 and call('LPOP', P .. key, left) or {}) do end_it(id) end
end
local function empty_set(key)
  local found = left > 0 and call('ZPOPMIN', P .. key, left) or {}
  for i = 1, #found, 2 do end_it(found[i]) end
end

if line == '' then
  empty_list('suspects:' .. queue)
  empty_list('queue:' .. queue)
  empty_set('ranked:' .. queue)
else
  empty_list('gated:' .. queue .. '|' .. line)
  empty_set('ranked:' .. queue .. '|' .. line)
  if not first_of(queue, line) then leave_line(line, queue) end
end
if marked(queue, $MARK_RANKED) then forget_turns(queue) end
write_counts()
return gone
