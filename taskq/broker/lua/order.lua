--@include base
-- A word for the parent of a worker, which listens.
--
-- KEYS  1 prefix
-- ARGV  1 the worker's id, 2 the word
-- Returns 1, or 0 if no worker of that id has lately said how it is.
-- Again: it is told twice, which is as good as once.
local id, list = ARGV[1], P .. 'orders:' .. ARGV[1]
if tonumber(call('ZSCORE', P .. 'fleet-ends', id) or 0) <= clock() then return 0 end
call('LLEN', list)
begin_writes()
call('RPUSH', list, ARGV[2])
call('PEXPIRE', list, 60000)
return 1
