--@include core
--@include bells
--@include reading
--@include counting
--@include waiting
-- A message comes from another partition: it is accepted, once, however many times it is carried over.
--
-- KEYS  1 prefix
-- ARGV  1 id, 2 the message as a producer would send it, 3 options as for enqueue
-- Returns as enqueue.lua for one message; '=' says that another message or a result has this id here.
-- Again: '+', changing nothing, for a week.
local id, mark = ARGV[1], P .. 'arrived:' .. ARGV[1]
if call('EXISTS', mark) == 1 then return $ACCEPTED end
local now = clock()
--@include accept
local answer = accept(id, ARGV[2], ARGV[3])
if answer == $ACCEPTED or answer == $UNSERVED then
  begin_writes() -- it takes no more room than it gives up where it comes from
  write_accepted()
  write_counts()
  call('SET', mark, '1', 'EX', 604800)
end
return answer
