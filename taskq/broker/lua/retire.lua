--@include base
--@include types
--@include ending
--@include burying
-- Delete dead letters older than dead_ttl. A queue whose dead letters cannot be read does not stop the others.
--
-- KEYS  1 prefix
-- ARGV  1 limit per queue, then queues
-- Returns how many were deleted.  Again: finds no more.
local limit, ttl, gone = tonumber(ARGV[1]), setting('dead_ttl'), 0
if not ttl then return 0 end
local horizon = int(clock() - ttl)
expect_common()
begin_writes()
for i = 2, #ARGV do
  local queue = ARGV[i]
  local old = redis.pcall('ZRANGEBYSCORE', P .. 'dead:' .. queue, '-inf', horizon, 'LIMIT', 0, limit)
  if #old > 0 then
    purged(queue, old)
    gone = gone + #old
  end
end
write_counts()
return gone
