--@include base
-- Whether it is the caller's turn to look for what no script leaves behind: only one caller's in a while.
--
-- KEYS  1 prefix
-- ARGV  1 ms for which it is no other caller's
-- Returns 1, or 0 if another caller had the turn lately.
-- Again: 0 until the time is over.
if call('EXISTS', P .. 'audited') == 1 then return 0 end
begin_writes()
call('SET', P .. 'audited', '1', 'PX', ARGV[1])
return 1
