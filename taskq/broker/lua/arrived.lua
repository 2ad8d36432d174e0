--@include base
--@include types
--@include ending
-- A message that was to go to another partition has arrived there, or is not wanted there.
--
-- KEYS  1 prefix
-- ARGV  1 id, 2 '1' if it has arrived; else it stays the dead letter that it was
-- Returns 1, or 0 if it was not on its way.
-- Again: 0.
local id = ARGV[1]
expect_common()
expect('hash', { 'onward' })
if call('HEXISTS', P .. 'onward', id) == 0 then return 0 end
local value = call('HGET', P .. 'messages', id)
local queue = value and head(value)
if queue then expect_queue(queue) end
begin_writes()
call('HDEL', P .. 'onward', id)
if ARGV[2] == '1' and queue and call('ZREM', P .. 'dead:' .. queue, id) == 1 then
  call('HDEL', P .. 'reasons', id)
  call('DEL', P .. 'result:' .. id)
  ended(queue, { id }, 'moved')
end
write_counts()
return 1
