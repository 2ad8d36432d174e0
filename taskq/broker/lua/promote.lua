--@include base
--@include types
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include unique
--@include gates
--@include pausing
-- Move what is due to its queue, name the ticks of periodic entries that are due, and name the next due time to one caller
-- only, the keeper. The others are told to come half a second later, in case the keeper is gone by then.
--
-- KEYS  1 prefix
-- ARGV  1 who calls, 2 limit, 3 ms for which the caller stays the keeper at most, 4 how many due ticks to skip: those that
--       it could not read
-- Returns {moved, ms until the caller should call again, or -1 if nothing is scheduled, now ms, 1 if there may be more due
--       ticks than these, then for each due tick: entry's name, entry, tick ms ('' for a new entry), due ms}.
-- Again: finds nothing more to move. Any number may call at once. Ticks are named until somebody takes them (tick).
expect_common()
--@include promote
local now = clock()
local moved, due = promote(now, tonumber(ARGV[2]))
write_counts()
local out = { moved, -1, int(now), 0 }

-- The due ticks, at most 100; returns when the next one is.
local function name_ticks()
  local first = tonumber(call('ZRANGE', P .. 'ticks', 0, 0, 'WITHSCORES')[2])
  if not first or first > now then return first end
  local ticks = call('ZRANGEBYSCORE', P .. 'ticks', '-inf', int(now), 'WITHSCORES', 'LIMIT', ARGV[4], 100)
  if #ticks == 200 then out[4] = 1 end
  for i = 1, #ticks, 2 do
    local entry = call('HGET', P .. 'periodic', ticks[i])
    local tick = redis.pcall('HGET', P .. 'entry:' .. ticks[i], 'tick') -- one of the wrong type must not stop the others
    if entry and type(tick) ~= 'table' then
      out[#out + 1] = ticks[i]
      out[#out + 1] = entry
      out[#out + 1] = tick or ''
      out[#out + 1] = ticks[i + 1]
    end
  end
  return tonumber(call('ZRANGEBYSCORE', P .. 'ticks', '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
end

local tick = name_ticks()
if tick and (not due or tick < due) then due = tick end
local keeper = P .. 'keeper'
local who, until_ = string.match(call('GET', keeper) or '', '^(%S+) (%d+)$')
if not due then
  if who == ARGV[1] then call('DEL', keeper) end -- the next caller must not rely on one that has already been here
  return out
end
local wait = math.min(math.max(due - now, 0), tonumber(ARGV[3]))
out[2] = int(math.ceil(wait))
if #out > 4 or out[4] == 1 then return out end -- the caller takes the ticks and comes again
if who and who ~= ARGV[1] and tonumber(until_) <= due and tonumber(until_) > now - 100 then
  out[2] = int(math.ceil(wait + 500))
  return out
end
begin_writes()
call('SET', keeper, ARGV[1] .. ' ' .. int(now + wait), 'PX', int(wait + 1000))
return out
