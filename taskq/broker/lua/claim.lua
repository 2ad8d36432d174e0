--@include base
--@include types
-- How many partitions an app has: said by whoever comes first, and changed by whom nobody was quicker.
--
-- KEYS  1 prefix, of the first partition
-- ARGV  1 the number, 2 the one that the caller has seen ('' for none)
-- Returns 1, or 0 if there is another by now.
-- Again: 1, if nobody has changed it since.
expect('hash', { 'settings' })
local there = call('HGET', P .. 'settings', 'partitions') or ''
if there ~= ARGV[2] and there ~= ARGV[1] then return 0 end
begin_writes()
if ARGV[1] == '1' then call('HDEL', P .. 'settings', 'partitions')
else call('HSET', P .. 'settings', 'partitions', ARGV[1])
end
return 1
