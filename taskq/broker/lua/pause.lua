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
--@include pausing
-- Pause a queue or a task: nothing more of it is taken. Running tasks go on, new messages wait.
--
-- KEYS  1 prefix
-- ARGV  1 queue or task, 2 ms after which it is resumed by itself (0: never), 3 by whom and why (opaque)
-- Returns 1, or 0 if it was paused already; then the new reason and time replace the old ones.
-- Again: 0.
expect_common()
local was = call('HEXISTS', P .. 'paused', what_to_pause(ARGV[1]))
begin_writes()
pause(ARGV[1], clock(), tonumber(ARGV[2]), ARGV[3])
return 1 - was
