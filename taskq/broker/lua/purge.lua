--@include base
--@include types
-- Dead letters go for good.
--
-- KEYS  1 prefix
-- ARGV  1 queue, then ids (at most 1000)
-- Returns how many went.  Again: 0.
local queue, gone = ARGV[1], 0
expect_common()
expect_queue(queue)
begin_writes()
for i = 2, #ARGV do
  local id = ARGV[i]
  if call('ZREM', P .. 'dead:' .. queue, id) == 1 then
    gone = gone + 1
    call('HDEL', P .. 'messages', id)
    call('HDEL', P .. 'reasons', id)
  end
end
count(queue, 'purged', gone)
write_counts()
return gone
