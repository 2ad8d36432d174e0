--@include base
--@include bells
--@include waiting
-- A worker says which tasks the lanes of its children run and which queues its tasks have. The lanes are told of messages of
-- those tasks that other lanes have handed on.
--
-- KEYS  1 prefix
-- ARGV  1 a line for each lane: its set, a space, its tasks, a space after each; then task and queue in turn
-- Returns 1.  Again: the same.
local now, gates, homes = clock(), {}, P .. 'homes'
begin_writes()
-- Earlier messages count as belonging to their queue only if no worker of a version that did not note guests was here.
call('HSETNX', homes, '=', call('EXISTS', P .. 'tasks') == 1 and int(now) or 0)
for set, tasks in string.gmatch(ARGV[1], '(%S+)( [^\n]*)') do
  call('HSET', P .. 'runs', set, ARGV[1])
  for task in string.gmatch(tasks, '%S+') do gates[#gates + 1] = task .. '#t' end
end
for i = 2, #ARGV, 2 do
  local task, known = ARGV[i], call('HGET', homes, ARGV[i]) or ' '
  local all = known
  for _, queue in ipairs({ call('HGET', P .. 'tasks', task) or ARGV[i + 1], ARGV[i + 1] }) do
    if not find(all, ' ' .. queue .. ' ', 1, true) then all = all .. queue .. ' ' end
  end
  if all ~= known then call('HSET', homes, task, all) end
end
for first = 1, #gates, 1000 do
  for i, waiters in ipairs(call('HMGET', P .. 'gates', unpack(gates, first, math.min(first + 999, #gates)))) do
    for queue in string.gmatch(waiters or '', '%S+') do announce(queue, now, gates[first + i - 1]) end
  end
end
return 1
