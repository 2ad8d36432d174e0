--@include base
--@include types
--@include ending
--@include burying
-- Delete dead letters.
--
-- KEYS  1 prefix
-- ARGV  1 queue, then ids (at most 1000)
-- Returns how many were deleted. Again: 0.
local queue, gone = ARGV[1], 0
expect_common()
expect_queue(queue)
begin_writes()
for i = 2, #ARGV do
  if call('ZSCORE', P .. 'dead:' .. queue, ARGV[i]) then
    gone = gone + 1
    purged(queue, { ARGV[i] })
  end
end
write_counts()
return gone
