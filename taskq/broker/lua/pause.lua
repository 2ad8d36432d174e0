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
-- Let nothing more be taken from a queue, or of a task: what runs goes on, what comes waits.
--
-- KEYS  1 prefix
-- ARGV  1 queue or task, 2 ms after which it is resumed by itself (0: never), 3 by whom and why (opaque)
-- Returns 1, or 0 if it was paused before; then the new reason and time hold.
-- Again: 0.
expect_common()
local was = call('HEXISTS', P .. 'paused', what_to_pause(ARGV[1]))
begin_writes()
pause(ARGV[1], clock(), tonumber(ARGV[2]), ARGV[3])
return 1 - was
