-- What plain queues and messages do not need: marks, what a head says besides its names, messages that have a rank.

-- What else a head says, by its letter: for a value whose flags say so, from where the names end. If it was cut short, only
-- whole fields.
local function extras(value, flags, at)
  local found = {}
  if flags < $FLAG_MORE then return found end
  local high, low = byte(value, at, at + 1)
  local stop = low and math.min(at + 2 + high * 256 + low, #value + 1) or 0
  at = at + 2
  while at + 1 < stop do
    local after = at + 2 + byte(value, at + 1)
    if after <= stop then found[sub(value, at, at)] = sub(value, at + 2, after - 1) end
    at = after
  end
  return found
end

local function marked(queue, letter) return find(marks(queue), letter, 1, true) ~= nil end
local function mark(queue, letter, on)
  local letters = call('HGET', P .. 'marks', queue) or ''
  if (find(letters, letter, 1, true) ~= nil) == on then return end
  letters = on and letters .. letter or string.gsub(letters, letter, '')
  marks_of, rare = {}, nil
  if letters == '' then call('HDEL', P .. 'marks', queue) else call('HSET', P .. 'marks', queue, letters) end
end

-- Ranked messages: those with a priority, and those of a fair queue. They stand in a sorted set, in a band for each
-- priority; within a band by their turn. A turn is a rising number; in a fair queue it is the virtual time at which
-- the message would end if every key had its share.
-- Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996; the rank is the finish tag.
local BAND, FIRST, UNIT = 2 ^ 45, 2 ^ 30, 1024

-- The key of a message in a fair queue, within its priority, and how far a turn of it moves the time on.
local function share_of(found)
  local level = found[$FIELD_PRIORITY] and byte(found[$FIELD_PRIORITY]) - 128 or 0
  return level .. '|' .. sub(found[$FIELD_FAIR], 9), math.ceil(UNIT / struct.unpack('>d', sub(found[$FIELD_FAIR], 1, 8)))
end

-- The rank of one more message, at most the last of its band; `seen` has what this call has given out: first ranks by
-- band, last turns by key.
local function rank_of(queue, found, at_head, seen)
  local level = found[$FIELD_PRIORITY] and byte(found[$FIELD_PRIORITY]) - 128 or 0
  local base = -level * BAND
  if at_head then
    local low, high = int(base), '(' .. int(base + BAND)
    seen.first[base] = (seen.first[base]
      or call('ZRANGEBYSCORE', P .. 'ranked:' .. queue, low, high, 'WITHSCORES', 'LIMIT', 0, 1)[2] or base + FIRST) - 1
    return seen.first[base]
  end
  if not found[$FIELD_FAIR] then
    seen.turn = (seen.turn or tonumber(call('HGET', P .. 'turns', queue) or 0)) + 1
    return math.min(base + FIRST + seen.turn * UNIT, base + BAND - 1)
  end
  local fair, key, units = P .. 'fair:' .. queue, share_of(found)
  local served = seen.served[level] or tonumber(call('ZSCORE', fair, level) or base + FIRST)
  local last = seen.last[key] or tonumber(call('ZSCORE', fair, key) or served)
  seen.served[level], seen.last[key] = served, math.min(math.max(served, last) + units, base + BAND - 1)
  return seen.last[key]
end

-- Put ids into a queue that may have ranked messages, each where it belongs. `known`: what the heads of ranked ones say, by
-- id, if that has been read.
local function offer(queue, ids, now, at_head, known)
  if not marked(queue, $MARK_RANKED) then return push(queue, ids, now, at_head) end
  local plain, ranked, key = {}, {}, P .. 'ranked:' .. queue
  for i = 1, #ids do
    local found = known and (known[ids[i]] or {})
    if not known then
      local value = call('HGET', P .. 'messages', ids[i])
      local _, _, _, flags, at = head(value)
      found = extras(value, flags or 0, at)
    end
    if found[$FIELD_PRIORITY] or found[$FIELD_FAIR] then ranked[#ranked + 1] = { ids[i], found } else plain[#plain + 1] = ids[i] end
  end
  local seen, scores = { first = {}, served = {}, last = {} }, {}
  for i = 1, #ranked do
    local item = ranked[at_head and #ranked + 1 - i or i]
    scores[#scores + 1] = int(rank_of(queue, item[2], at_head, seen))
    scores[#scores + 1] = item[1]
  end
  for i = 1, #scores, 1000 do call('ZADD', key, unpack(scores, i, math.min(i + 999, #scores))) end
  if seen.turn then call('HSET', P .. 'turns', queue, int(seen.turn)) end
  for name, turn in pairs(seen.last) do call('ZADD', P .. 'fair:' .. queue, int(turn), name) end
  if #ranked > 0 and call('ZCARD', key) == #ranked then announce(queue, now) end
  push(queue, plain, now, at_head)
end

-- With no ranked message left, not even in its lines, the turns start again.
local function forget_turns(queue)
  local gated = tonumber(call('HGET', P .. 'counters', queue .. '|gated') or 0) + (counts[queue .. '|gated'] or 0)
  if gated > 0 or call('EXISTS', P .. 'ranked:' .. queue) == 1 then return end
  call('DEL', P .. 'fair:' .. queue)
  call('HDEL', P .. 'turns', queue)
end

-- Messages of these ranks were taken: `served` has the last of each band. That is the virtual time of fair ones.
local function keep_turns(queue, served)
  local fair = P .. 'fair:' .. queue
  if next(served) and call('ZCARD', fair) > 0 then
    for band, last in pairs(served) do
      call('ZREMRANGEBYSCORE', fair, int(band * BAND), '(' .. int(last)) -- keys that have had their share count as new
      call('ZADD', fair, 'GT', int(last), int(0 - band)) -- not -band: there is a -0, which has another name
    end
  end
  forget_turns(queue)
end

-- Messages that ended unrun give their turns back: those of their keys behind them, among the next 200 of a queue or a line,
-- move up. `gone`: {value, rank} of each.
local function give_back(queue, gone, line)
  local units_of, from_of, lowest = {}, {}, 1 / 0
  for _, item in ipairs(gone) do
    local _, _, _, flags, at = head(item[1])
    local found = extras(item[1], flags or 0, at)
    if found[$FIELD_FAIR] then
      local key, units = share_of(found)
      units_of[key] = (units_of[key] or 0) + units
      from_of[key] = math.max(from_of[key] or item[2], item[2])
      lowest = math.min(lowest, item[2])
    end
  end
  if not next(units_of) then return end
  local all_seen = true
  for _, name in ipairs({ queue, line and queue .. '|' .. line }) do
    local behind = call('ZRANGEBYSCORE', P .. 'ranked:' .. name, '(' .. int(lowest), '+inf', 'WITHSCORES', 'LIMIT', 0, 200)
    all_seen = all_seen and #behind < 400
    for i = 1, #behind, 2 do
      local value = call('HGET', P .. 'messages', behind[i])
      local _, _, _, flags, at = head(value)
      local found = extras(value, flags or 0, at)
      local units = found[$FIELD_FAIR] and units_of[(share_of(found))]
      if units then call('ZADD', P .. 'ranked:' .. name, int(behind[i + 1] - units), behind[i]) end
    end
  end
  for key, units in pairs(units_of) do
    local last = tonumber(call('ZSCORE', P .. 'fair:' .. queue, key))
    if last and (all_seen or last <= from_of[key]) then call('ZADD', P .. 'fair:' .. queue, int(last - units), key) end
  end
end

-- Take up to n ids from a queue: those above the plain list, those of it, those below. Returns also the ranks they had.
local function pop(queue, n)
  local key, ids, ranks = P .. 'ranked:' .. queue, {}, {}
  local function take_ranked(high)
    local some = call('ZRANGEBYSCORE', key, '-inf', high, 'WITHSCORES', 'LIMIT', 0, n - #ids)
    for i = 1, #some, 2 do
      ids[#ids + 1] = some[i]
      ranks[#ids] = tonumber(some[i + 1])
    end
    if #some > 0 then call('ZREMRANGEBYRANK', key, 0, #some / 2 - 1) end -- they are the first: cheaper than to look each up
  end
  local any = marked(queue, $MARK_RANKED)
  if any then
    call('LLEN', P .. 'queue:' .. queue) -- if it has the wrong type, it must not end this between the two
    take_ranked('(0')
  end
  if #ids < n then
    for _, id in ipairs(call('LPOP', P .. 'queue:' .. queue, n - #ids) or {}) do ids[#ids + 1] = id end
  end
  if any and #ids < n then take_ranked('+inf') end
  return ids, ranks
end

-- Look at the types of what ranked messages are written to.
local function look_before(queue)
  marks(queue)
  call('ZCARD', P .. 'ranked:' .. queue)
  call('ZCARD', P .. 'fair:' .. queue)
  call('HLEN', P .. 'turns')
end

-- How many wait in a queue, not counting its suspects and those that wait at a gate.
local function waiting(queue)
  return call('LLEN', P .. 'queue:' .. queue) + (marked(queue, $MARK_RANKED) and call('ZCARD', P .. 'ranked:' .. queue) or 0)
end

-- The same including those at gates, which have a counter.
local function all_waiting(queue)
  return waiting(queue) + (marked(queue, $MARK_LIMITED) and tonumber(call('HGET', P .. 'counters', queue .. '|gated')) or 0)
end
