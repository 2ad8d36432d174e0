--@include base
--@include waiting
--@include ranked
--@include terminal
--@include unique
--@include gates
--@include pausing
-- Move what is due to its queue, and name the next due time to one caller only: its keeper. The others are told to come
-- half a second later, for the case that the keeper is gone by then.
--
-- KEYS  1 prefix
-- ARGV  1 who calls, 2 limit, 3 ms for which the caller stays the keeper at most
-- Returns {moved, ms until the caller should call again, or -1 if nothing is scheduled}.
-- Again: finds nothing more to move. Any number may call at once.
local flow = { offer = offer, open = open, resume = resume } -- fetch.lua says why
--@include promote
local now = clock()
local moved, due = promote(now, tonumber(ARGV[2]))
write_counts()
if not due then return { moved, -1 } end
local keeper = P .. 'keeper'
local held = call('GET', keeper)
local who, until_ = string.match(held or '', '^(%S+) (%d+)$')
local wait = math.min(math.max(due - now, 0), tonumber(ARGV[3]))
if who and who ~= ARGV[1] and tonumber(until_) <= due and tonumber(until_) > now - 100 then
  return { moved, int(math.ceil(wait + 500)) }
end
begin_writes()
call('SET', keeper, ARGV[1] .. ' ' .. int(now + wait), 'PX', int(wait + 1000))
return { moved, int(math.ceil(wait)) }
