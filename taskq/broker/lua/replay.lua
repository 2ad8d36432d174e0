--@include base
--@include types
--@include bells
--@include waiting
--@include ranked
--@include unique
--@include moving
-- Put a dead letter back at the end of its queue, as if it were new; or at the end of another queue of this partition.
--
-- KEYS  1 prefix
-- ARGV  1 queue, 2 id, 3 value to store ('' to keep the present one), 4 the queue that this value names ('' for the same)
-- Returns 1, 0 if that is not a dead letter of that queue or on its way to another partition, or -1 if it is unique work that
--       another message does by now.
-- Again: 0.
local queue, id = ARGV[1], ARGV[2]
local to = (ARGV[4] or '') ~= '' and ARGV[4] or queue
if not call('ZSCORE', P .. 'dead:' .. queue, id) or call('HEXISTS', P .. 'messages', id) == 0 then return 0 end
if call('HEXISTS', P .. 'onward', id) == 1 then return 0 end
local _, task, _, flags, at = head(call('HGET', P .. 'messages', id))
local found = extras(call('HGET', P .. 'messages', id), flags or 0, at)
local lock, mode, ms
if found[$FIELD_LOCK] then
  lock, mode, ms = lock_in(found[$FIELD_LOCK])
  if mode ~= 't' and holder(lock, mode, clock()) then return -1 end
end
expect_common()
expect_queue(queue)
expect_queue(to)
expect('hash', { 'guests', 'tasks' })
begin_writes()
if lock and mode ~= 't' then take_lock(lock, mode, ms, id, clock()) end
call('ZREM', P .. 'dead:' .. queue, id)
call('HDEL', P .. 'reasons', id)
call('HDEL', P .. 'crashes', id)
call('DEL', P .. 'result:' .. id)
if ARGV[3] ~= '' then call('HSET', P .. 'messages', id, ARGV[3]) end
count(queue, 'replayed')
if to ~= queue then moved(queue, to, call('HGET', P .. 'messages', id)) end
offer(to, { id }, clock())
write_counts()
return 1
