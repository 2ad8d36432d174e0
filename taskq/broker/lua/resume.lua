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
-- Let messages of a paused queue or task be taken again.
--
-- KEYS  1 prefix
-- ARGV  1 queue or task
-- Returns 1, or 0 if it was not paused.  Again: 0.
expect_common()
begin_writes()
return resume(ARGV[1], clock())
