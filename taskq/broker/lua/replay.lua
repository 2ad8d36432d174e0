--@include base
--@include waiting
-- A dead letter goes back to the end of its queue, as if new.
--
-- KEYS  1 prefix
-- ARGV  1 queue, 2 id, 3 value to store ('' to keep the present one)
-- Returns 1, or 0 if that is not a dead letter of that queue.  Again: 0.
local queue, id = ARGV[1], ARGV[2]
if not call('ZSCORE', P .. 'dead:' .. queue, id) or call('HEXISTS', P .. 'messages', id) == 0 then return 0 end
begin_writes()
call('ZREM', P .. 'dead:' .. queue, id)
call('HDEL', P .. 'reasons', id)
call('HDEL', P .. 'crashes', id)
call('DEL', P .. 'result:' .. id)
if ARGV[3] ~= '' then call('HSET', P .. 'messages', id, ARGV[3]) end
push(queue, { id }, clock())
count(queue, 'replayed')
write_counts()
return 1
