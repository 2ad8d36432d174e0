--@include base
--@include types
--@include held
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include unique
--@include gates
--@include revoking
--@include recover
-- End an incarnation whose process is known to be gone, or which ends by itself: what it held goes back.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 'died' | 'stopped' | 'lost' (nobody knows what was running), 3 '1' if a single running message had
--       the process for itself, 4 what is known of the death (opaque, for dead letters), then the ids that were running
-- Returns moves: id, queue, place, id, queue, place ... ; nothing if the incarnation is not registered (any more).
-- Again: goes on if there is too much for one call; then changes nothing.
local inc = ARGV[1]
if call('HEXISTS', P .. 'calls', inc) == 0 and not call('ZSCORE', P .. 'leases', inc) then return {} end
local running = ARGV[2] ~= 'lost' and {} or nil
for i = 5, #ARGV do running[ARGV[i]] = true end
local moves = recover(inc, clock(), running, ARGV[2] ~= 'stopped', ARGV[3] == '1', ARGV[4])
write_counts()
return moves
