--@include base
--@include types
-- A dead letter is to go to a queue of another partition. It stays what it is until it has arrived there (`arrived.lua`);
-- what it is to be there is kept meanwhile, for whoever carries it over.
--
-- KEYS  1 prefix
-- ARGV  1 queue, 2 id, 3 the queue it goes to, 4 the message as it is to be stored there
-- Returns 1, or 0 if that is not a dead letter of that queue, or is on its way already.
-- Again: 0.
local queue, id = ARGV[1], ARGV[2]
expect('hash', { 'onward', 'messages' })
expect('zset', { 'dead:' .. queue })
if not call('ZSCORE', P .. 'dead:' .. queue, id) or call('HEXISTS', P .. 'messages', id) == 0 then return 0 end
if call('HEXISTS', P .. 'onward', id) == 1 then return 0 end
begin_writes()
call('HSET', P .. 'onward', id, ARGV[3] .. '\n' .. ARGV[4])
return 1
