--@include base
--@include types
-- Keep the ledger as it is now, beside the one kept before: what was counted since then tells how fast a queue goes.
--
-- KEYS  1 prefix
-- ARGV  none
-- Returns 1.
-- Again: keeps it once more; then the last two are as good as one.
expect('hash', { 'counters', 'minute:1', 'minute:2' })
begin_writes()
if call('EXISTS', P .. 'minute:1') == 1 then call('RENAME', P .. 'minute:1', P .. 'minute:2') end
call('COPY', P .. 'counters', P .. 'minute:1')
call('HSET', P .. 'minute:1', '=', int(clock()))
return 1
