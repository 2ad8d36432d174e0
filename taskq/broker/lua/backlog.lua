--@include base
-- How much waits in some queues, and how long its oldest has.
--
-- KEYS  1 prefix
-- ARGV  queues
-- Returns {messages waiting, ms since the oldest of the next ones was accepted}.
local pending, oldest, now = 0, 0, clock()
for i = 1, #ARGV do
  local key = P .. 'queue:' .. ARGV[i]
  local n = call('LLEN', key)
  pending = pending + n
  if n > 0 then
    local _, _, accepted = head(call('HGET', P .. 'messages', call('LINDEX', key, 0)))
    if accepted then oldest = math.max(oldest, now - accepted) end
  end
end
return { pending, int(oldest) }
