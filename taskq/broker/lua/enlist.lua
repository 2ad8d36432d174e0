--@include base
--@include waiting
-- A worker says what the lanes of its children run, and they are told of the messages of those tasks that others handed on.
--
-- KEYS  1 prefix
-- ARGV  1 a line for each lane: its set, a space, its tasks, a space after each
-- Returns 1.  Again: the same.
local now, gates = clock(), {}
begin_writes()
for set, tasks in string.gmatch(ARGV[1], '(%S+)( [^\n]*)') do
  call('HSET', P .. 'runs', set, ARGV[1])
  for task in string.gmatch(tasks, '%S+') do gates[#gates + 1] = task .. '#t' end
end
for first = 1, #gates, 1000 do
  for i, waiters in ipairs(call('HMGET', P .. 'gates', unpack(gates, first, math.min(first + 999, #gates)))) do
    for queue in string.gmatch(waiters or '', '%S+') do announce(queue, now, gates[first + i - 1]) end
  end
end
return 1
