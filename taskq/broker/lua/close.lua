--@include base
--@include held
--@include waiting
--@include ranked
--@include terminal
--@include unique
--@include gates
--@include revoking
--@include recover
-- End an incarnation whose process is known to be gone, or which ends by itself: what it held goes back.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 'died' | 'stopped', 3 '1' if a single running message had the process for itself,
--       4 what is known of the death (opaque, for dead letters), then the ids that were running
-- Returns moves: id, queue, place, id, queue, place ... ; nothing if the incarnation is not registered.
-- Again: changes nothing.
local inc = ARGV[1]
if call('HEXISTS', P .. 'calls', inc) == 0 then return {} end
local running = {}
for i = 5, #ARGV do running[ARGV[i]] = true end
local moves = recover(inc, clock(), running, ARGV[2] == 'died', ARGV[3] == '1', ARGV[4])
write_counts()
return moves
