--@include base
--@include types
-- Keep a copy of the ledger, beside the previous copy: the difference tells how fast each queue moves.
--
-- KEYS  1 prefix
-- ARGV  none
-- Returns 1.
-- Again: keeps another copy, equal to the last one.
expect('hash', { 'counters', 'minute:1', 'minute:2' })
begin_writes()
if call('EXISTS', P .. 'minute:1') == 1 then call('RENAME', P .. 'minute:1', P .. 'minute:2') end
call('COPY', P .. 'counters', P .. 'minute:1')
call('HSET', P .. 'minute:1', '=', int(clock()))
return 1
