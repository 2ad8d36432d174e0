--@include base
-- Leave an order for the parent of a worker, which listens for it.
--
-- KEYS  1 prefix
-- ARGV  1 the worker's id, 2 the word
-- Returns 1, or 0 if no worker of that id has reported lately.
-- Again: the worker hears it twice, which does no harm.
local id, list = ARGV[1], P .. 'orders:' .. ARGV[1]
if tonumber(call('ZSCORE', P .. 'fleet-ends', id) or 0) <= clock() then return 0 end
call('LLEN', list)
begin_writes()
call('RPUSH', list, ARGV[2])
call('PEXPIRE', list, 60000)
return 1
