--@include base
--@include waiting
--@include terminal
--@include unique
--@include gates
--@include pausing
--@include promote
-- Settle deliveries that have ended, promote what is due, take new messages: one round trip of a worker.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 call number, 3 how many to take at most (0 to 128), 4 set of queues,
--       5 mode: '' | 'repair' (after a wait in vain: put back missing names of ready queues) | 'solo' (one suspect)
--       6 caps: '' or ' queue=n queue=n ' : how many of a queue fill one fetch alone; a queue not named: 1;
--         0: one, and nothing else with it
--       7 order of the queues: '' in turn | ' queue=n queue=n ' by weight | '! queue=n queue=n ' the highest n first
--       then groups of outcomes:
--         'done', ids of 16 bytes joined, result TTL ms, n results, results ...   (n is 0 or the number of ids)
--         'end', id, counter, result, result TTL ms          done | failed | discarded
--         'dead', id, reason, detail, result, result TTL ms
--         'schedule', id, value, delay ms, counter           retried | deferred
--         'limit', id, ms for which its gate is shut          uncounted, to the head
--         'return', id                                        uncounted, to the head (in order, last first)
-- Returns {'lost'} if the incarnation is not registered, {'stale'} if the number is not higher than its last;
--       else {now ms, outcomes refused because the id is no longer held, crashes of the suspect, id, value, id, value ...}.
-- Again: refused as stale, changing nothing.
local inc, number = ARGV[1], tonumber(ARGV[2])
local last = call('HGET', P .. 'calls', inc)
if not last then return { 'lost' } end
if number <= tonumber(last) then return { 'stale' } end
local want, set, mode, caps, order = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local now = clock()
local processing, messages = P .. 'processing:' .. inc, P .. 'messages'
begin_writes()
call('HSET', P .. 'calls', inc, number)

--@include settle
local width = { ['end'] = 5, dead = 6, schedule = 5, limit = 3, ['return'] = 2 }
-- What a breaker is to know of an outcome: whether the task failed, or nothing.
local function has_failed(kind, i)
  local how = ARGV[kind == 'schedule' and i + 4 or i + 2]
  if how == 'failed' or how == 'retried' then return true end
  if kind == 'end' and how == 'done' then return false end
end

local i = 8
while i <= #ARGV do
  local kind = ARGV[i]
  if kind == 'done' then
    local n_results = tonumber(ARGV[i + 3])
    settle_done(ARGV[i + 1], ARGV[i + 2], i + 4, n_results)
    i = i + 4 + n_results
  else
    local id = ARGV[i + 1]
    local value = call('HGET', processing, id)
    if value then
      call('HDEL', processing, id)
      settle[kind](i, id, queue_in(value), value)
      left(value, has_failed(kind, i))
    else
      fenced = fenced + 1
    end
    i = i + width[kind]
  end
end


promote(now, 100)
local out = { int(now), fenced, 0 }
--@include take

if want > 0 and mode == 'solo' then
  take_suspect()
elseif want > 0 then
  if mode == 'repair' then repair() end
  take_ready()
end
-- Whoever takes the token also passes it on, so each bell is followed by as many as there is work for.
if set ~= '' and mode ~= 'solo' and call('ZCARD', P .. 'ready:' .. set) > 0 then ring(P .. 'bell:' .. set) end
write_counts()
return out
