--@include base
--@include held
--@include waiting
--@include terminal
-- Settle deliveries that have ended, promote what is due, take new messages: one round trip of a worker.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 call number, 3 how many to take at most (0 to 128), 4 set of queues,
--       5 mode: '' | 'repair' (after a wait in vain: put back missing names of ready queues) | 'solo' (one suspect)
--       6 pace: '' or ' queue=n/ms queue=n/ms ' : how many of a queue fill one fetch alone, and how many ms one takes (10 if not
--         said); a queue not named: 1; n = 0: one, and nothing else with it. A '*' before it: the worker runs many at once
--       7 order of the queues: '' as they come up | ' queue=n queue=n ' time shared by weight, 1 if not named | '! queue=n '
--         the highest n first
--       then groups of outcomes (where memory is scarce results are not kept, but given to those who wait for them):
--         'done', ids of 16 bytes joined, result TTL ms, n results, results ...   (n is 0 or the number of ids)
--         'end', id, counter, result, result TTL ms          done | failed | discarded
--         'dead', id, reason, detail, result, result TTL ms
--         'schedule', id, value, delay ms, counter           retried | deferred
--         'pass', id, value ('' as it is), ms, again         this lane does not run its task: to one that does; anybody is to
--                                                             look after so many ms; again: '1' if it has been passed before
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

-- What most apps never have is looked for once. That it is asked for lengths is for the sake of the types: a key of the wrong
-- one ends the call before its first write.
rare = call('EXISTS', P .. 'crashes', P .. 'revoked', P .. 'openings', P .. 'marks', P .. 'scarce') > 0
local any_revoked = rare and call('HLEN', P .. 'revoked') > 0
local any_crashes = rare and call('HLEN', P .. 'crashes') > 0
local settles = #ARGV > 7
local waits = settles and anybody_waits()
if settles then
  call('HLEN', P .. 'counters') -- the others are read as the outcomes are
else
  call('HLEN', messages)
  call('HLEN', processing)
end
-- A server over its maxmemory refuses a first write that could need some. This one does nothing, and tells.
local full = true
if settles and (#ARGV > 11 or ARGV[8] ~= 'done' or ARGV[11] ~= '0') then -- not merely some that are done, without results
  local refused = redis.pcall('ZADD', P .. 'none', 'XX', 0, '')
  full = type(refused) == 'table'
  no_room = full and find(refused.err, 'maxmemory', 1, true) or rare and call('EXISTS', P .. 'scarce') == 1
end
if full then begin_writes() end
call('HSET', P .. 'calls', inc, number)
local out, outs = { int(now), 0, 0 }, 3
local fields, f = {}, 0 -- of the processing hash
local flow
-- Written after each queue, so that a key of the wrong type further on does not strand what was taken before it.
local function keep()
  if f > 0 then
    call('HSET', processing, unpack(fields))
    fields, f = {}, 0
  end
  if rawget(flow, 'save_gates') then flow.save_gates(now) end
end

-- Functions that plain messages do without. A script makes its functions anew in each call, which costs the server a
-- third of a microsecond apiece, so these are made when the first one is asked for.
flow = setmetatable({}, { __index = function(made, name)
--@include ranked
--@include unique
--@include gates
--@include pausing
--@include revoking
--@include expiring
--@include special
--@include types
  expect('hash', { 'slots', 'breakers', 'unique', 'limits', 'paused', 'turns' })
  expect('zset', { 'arrivals', 'openings', 'shut' })
  made.take_special, made.take_line, made.take_suspect, made.end_revoked = take_special, take_line, take_suspect, end_revoked
  made.repair, made.offer, made.free, made.put_back = repair, offer, free, put_back
  made.hand_on, made.open, made.resume, made.shut, made.save_gates = hand_on, open, resume, shut, save_gates
  made.superseded, made.watch_controls = superseded, watch_controls
  return rawget(made, name)
end })

local trouble
-- What cannot be promoted, or taken from one queue, keeps nothing else from being taken.
local function attempt(what, ...)
  local fine, got, more, alone = pcall(what, ...)
  if fine then return got, more, alone end
  trouble = got
  return 0, true
end

--@include settle
--@include promote
--@include shares
--@include take
local width = { ['end'] = 5, dead = 6, schedule = 5, limit = 3, ['return'] = 2, pass = 5 }

local function settle_all()
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
      if value then settle(kind, i, id, value) else fenced = fenced + 1 end
      i = i + width[kind]
    end
  end
end
local settled, why = pcall(settle_all)
keep()
write_counts()
if not settled then error(why) end -- what was settled before it is settled wholly
out[2] = fenced
attempt(promote, now, 100)
if want > 0 and mode == 'solo' then
  flow.take_suspect()
elseif want > 0 then
  if mode == 'repair' then flow.repair() end
  take_ready()
end
-- Whoever takes the token also passes it on, so each bell is followed by as many as there is work for.
if set ~= '' and mode ~= 'solo' and call('ZCARD', P .. 'ready:' .. set) > 0 then ring(P .. 'bell:' .. set) end
write_counts()
if trouble and outs == 3 then error(trouble) end
return out
