--@include base
--@include waiting
--@include ranked
-- How much waits in some queues that are not paused, and how long its oldest has.
--
-- KEYS  1 prefix
-- ARGV  queues
-- Returns {messages waiting, ms since the oldest of the next ones was accepted, suspects among them}.
local pending, oldest, suspects, now = 0, 0, 0, clock()
for i = 1, #ARGV do
  local queue = ARGV[i]
  if not marked(queue, 'p') then
    pending = pending + waiting(queue)
    suspects = suspects + call('LLEN', P .. 'suspects:' .. queue)
    local first = call('LINDEX', P .. 'queue:' .. queue, 0) or call('ZRANGE', P .. 'ranked:' .. queue, 0, 0)[1]
    local _, _, accepted = head(first and call('HGET', P .. 'messages', first))
    if accepted then oldest = math.max(oldest, now - accepted) end
  end
end
return { pending + suspects, int(oldest), suspects }
