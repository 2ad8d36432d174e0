--@include core
--@include counting
--@include ending
--@include held
-- Settle deliveries that have ended, promote what is due, take new messages: one round trip of a worker.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 call number, 3 how many to take at most (0 to 128), 4 set of queues ('' if its bell was not heard),
--       5 mode: '' | 'next' (sent with the call before; refused as stale unless that was executed) | 'solo' (one suspect)
--       6 pace: '' or ' queue=n/ms queue=n/ms ' : how many of one queue alone fill a fetch, and how many ms one takes (10
--         if not said); a queue not named: 1; n = 0: one, and nothing else with it. A '*' before it: the worker runs many
--         at once
--       7 order of the queues: '' as they come up | ' queue=n queue=n ' time shared by weight, 1 if not named | '! queue=n '
--         the highest n first
-- then groups of outcomes (if memory is scarce results are not kept, only given to callers that wait):
--         'done', ids of 16 bytes joined, result TTL ms, n results, results ...   (n is 0 or the number of ids)
--         'end', id, counter, result, result TTL ms          done | failed | discarded
--         'dead', id, reason, detail, result, result TTL ms
--         'schedule', id, value, delay ms, counter           retried | postponed | deferred
--         'move', id, value, delay ms, queue                 retried, in another queue of this partition
--         'pass', id, value ('' as it is), ms, again         this lane does not run its task: to one that does; any lane
-- may look after that many ms; again: '1' if it has been passed before 'limit', id, ms for which its gate is shut
-- uncounted, to the head 'return', id uncounted, to the head (in order, last first)
-- Returns {'lost'} if the incarnation is not registered, {'stale'} if the number is not higher than its last;
--       else {now ms, outcomes refused because the id is no longer held, crashes of the suspect, id, value, id, value ...}.
-- Again: refused as stale, changing nothing.
local inc, number = ARGV[1], tonumber(ARGV[2])
local last = call('HGET', P .. 'calls', inc)
if not last then return { 'lost' } end
if number <= tonumber(last) or ARGV[5] == 'next' and number ~= last + 1 then return { 'stale' } end

-- What the parts of this script share: what it was asked, what it answers (the first `outs` of `out`), and what is to be
-- written to the processing hash (the first `f` of `fields`).
local now, settles = clock(), #ARGV > 7
local run = {
  now = now, processing = P .. 'processing:' .. inc, messages = P .. 'messages',
  want = tonumber(ARGV[3]), set = ARGV[4], mode = ARGV[5], caps = ARGV[6], order = ARGV[7],
  out = { int(now), 0, 0 }, outs = 3, fields = {}, f = 0, some_revoked = false, some_wait = false,
}

-- Look once for what most apps never have, and many not now.
local timed = call('EXISTS', P .. 'schedule', P .. 'waiters', P .. 'marks', P .. 'openings', P .. 'crashes', P .. 'revoked', P .. 'scarce') > 0
rare = timed and call('EXISTS', P .. 'marks', P .. 'openings', P .. 'crashes', P .. 'revoked', P .. 'scarce') > 0
if timed and settles then run.some_wait = call('HLEN', P .. 'waiters') > 0 end
if rare then -- the lengths are asked only to check the types: a wrong one ends the call before its first write
  call('HLEN', P .. 'marks')
  call('HLEN', P .. 'crashes')
  run.some_revoked = call('HLEN', P .. 'revoked') > 0
  no_room = call('EXISTS', P .. 'scarce') == 1
end

-- A server over its maxmemory refuses a first write that could need memory. Another write shows that; then no result is
-- kept.
local function first_write(...)
  local answer = try(...)
  if type(answer) ~= 'table' then return end
  if not find(answer.err, 'maxmemory', 1, true) then error(answer.err) end
  no_room = true
  begin_writes()
  call(...)
end

-- What plain messages do without.
--@lazy flow: reading bells waiting delivering burying ranked unique gates pausing revoking expiring special moving settle promote types flow_types

-- If something cannot be promoted, or taken from one queue, everything else can still be taken.
local trouble
local function attempt(what, ...)
  local fine, got, more, alone = pcall(what, ...)
  if fine then return got, more, alone end
  trouble = got
  return 0, true
end

if settles then
--@include done
  if ARGV[8] == 'done' and #ARGV == 11 + ARGV[11] then
    settle_done(ARGV[9], ARGV[10], 12, tonumber(ARGV[11]))
    first_write('HSET', P .. 'calls', inc, number)
  else
    flow.settle_all(inc, number, settle_done)
  end
  write_counts()
end
for _, key in ipairs(timed and { 'schedule', 'openings' } or {}) do
  local first = try('ZRANGE', P .. key, 0, 0, 'WITHSCORES')
  if first.err or first[2] and tonumber(first[2]) <= now then
    attempt(flow.promote, now, 100)
    break
  end
end
local some_left = false
if run.mode == 'solo' then
  if run.want > 0 then flow.take_suspect() end
elseif run.want > 0 then
--@lazy turns: shares
--@include take
  some_left = take_ready()
elseif run.set ~= '' then
  some_left = call('ZCARD', P .. 'ready:' .. run.set) > 0
end
if not settles then first_write('HSET', P .. 'calls', inc, number) end
-- Whoever takes the token also passes it on, so a bell wakes as many children as there is work for.
if some_left and try('RPUSH', P .. 'bell:' .. run.set, '1') ~= 1 then try('LPOP', P .. 'bell:' .. run.set) end
write_counts()
if trouble and run.outs == 3 then error(trouble) end
return run.out
