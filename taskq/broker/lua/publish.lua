--@include base
--@include types
--@include waiting
--@include ranked
--@include terminal
--@include unique
--@include gates
-- Publish the tasks of a worker: their queues and their limits. What was set by hand instead stays in force.
--
-- KEYS  1 prefix
-- ARGV  for each task: task, queue, its limits ('' for none), a line each: kind (o: of all that is in the queue, s: of the
--       task in a queue it shares, k: for each key), ms between two (0: no rate), burst, slots (0: any number)
-- Returns how many gates may have opened by it.  Again: 0.
expect_common()
begin_writes()
local changed = 0
for i = 1, #ARGV, 3 do
  local task, queue, limits = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  call('HSET', P .. 'tasks', task, queue)
  if limits ~= '' then mark(queue, 'l', true) end
  if (call('HGET', P .. 'limits', task) or '') ~= limits then
    if limits == '' then call('HDEL', P .. 'limits', task) else call('HSET', P .. 'limits', task, limits) end
    changed = changed + open_all(task, clock())
  end
end
return changed
