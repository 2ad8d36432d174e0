--@include base
--@include types
--@include holder
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include unique
--@include gates
--@include revoking
-- Revoke a message, so that it does not run, or stops running. If it waits, it ends at once if its place is quickly
-- searched, else when its turn comes; a caller that waits for its result is told at once. If it runs, its worker is told
-- and stops it.
--
-- KEYS  1 prefix
-- ARGV  1 id, 2 why (opaque)
-- Returns 'unknown', 'dead' (a dead letter: purge it instead), 'revoked' (it will not run), or 'running'.
-- Again: the same, or 'unknown' when it has ended.
local id = ARGV[1]
local value = call('HGET', P .. 'messages', id)
if not value then return 'unknown' end
local queue, task, _, flags, at = head(value)
if not queue or call('HEXISTS', P .. 'reasons', id) == 1 then return 'dead' end

expect_common()
expect_queue(queue)
local inc = holders_of(id, 1)[1]
if inc then
  expect('list', { 'control:' .. inc })
  begin_writes()
  call('HSET', P .. 'revoked', id, ARGV[2])
  call('RPUSH', P .. 'control:' .. inc, id)
  call('PEXPIRE', P .. 'control:' .. inc, 60000)
  return 'running'
end

-- Whether it was there and is gone now.
local function left(key, kind)
  if kind == 'zset' then return call('ZREM', P .. key, id) == 1 end
  return call('LLEN', P .. key) <= 1000 and call('LREM', P .. key, 1, id) == 1
end

-- The same for ranked messages of a queue or a line: those behind it move up.
local function left_its_rank(line)
  local key = P .. 'ranked:' .. queue .. (line and '|' .. line or '')
  local rank = tonumber(call('ZSCORE', key, id))
  if rank then
    call('ZREM', key, id)
    give_back(queue, { { value, rank } }, line)
  end
  return rank ~= nil
end

begin_writes()
local gone = left('schedule', 'zset')
if gone then count(queue, 'scheduled', -1) end
gone = gone or left_its_rank()
if not gone and left('suspects:' .. queue) then
  gone = true
  -- They stand in a row: those behind it may pass where it had to wait.
  if call('EXISTS', P .. 'suspects:' .. queue) == 1 then announce_suspects(queue, clock()) end
end
gone = gone or left('queue:' .. queue)
local found = extras(value, flags, at)
local gates, line = gates_of(task, found)
for _, name in ipairs(gone and {} or { line, unpack(gates) }) do
  if left_its_rank(name) or left('gated:' .. queue .. '|' .. name) then
    count(queue, 'gated', -1)
    gone = true
    if not first_of(queue, name) then leave_line(name, queue) end
    break
  end
end
tell_end(id, $DISCARDED .. told_why(ARGV[2]))
if found[$FIELD_LOCK] then unlock((lock_in(found[$FIELD_LOCK])), id) end
if gone then ended(queue, { id }, 'discarded') else call('HSET', P .. 'revoked', id, ARGV[2]) end
if gone and marked(queue, $MARK_RANKED) then forget_turns(queue) end
write_counts()
return 'revoked'
