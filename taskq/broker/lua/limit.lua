--@include base
--@include types
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include unique
--@include gates
-- Set the limits of a task by hand, or go back to those of its code.
--
-- KEYS  1 prefix
-- ARGV  1 task, 2 limits as publish_tasks.lua takes them; '-': those of its code
-- Returns 1, or 0 if no worker has declared that task.  Again: the same.
local task, limits = ARGV[1], ARGV[2]
if call('HEXISTS', P .. 'tasks', task) == 0 then return 0 end
expect_common()
begin_writes()
if limits == '-' then
  call('HDEL', P .. 'limits', '!' .. task)
else
  call('HSET', P .. 'limits', '!' .. task, limits)
end
watch_controls()
open_all(task, clock())
return 1
