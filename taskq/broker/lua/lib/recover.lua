-- Put everything that an incarnation held where it belongs, and delete the incarnation. Used by close and reap.
--
-- running: the ids that may have been running, as a table id -> true; nil if nobody knows (the whole worker is gone).
-- died:    whether the process died under them (a crash), or was told to stop (an interruption).
-- alone:   whether a single running message had its process for itself.
-- cause:   what is known of the death, for a dead letter (opaque; '' for nothing).
-- Returns the moves made, as a flat list of id, queue, place; and whether there is more, for another call.

-- What an incarnation holds, in the order in which it was accepted, and how much that is. Of more than `MOST` only the last,
-- so that the rest goes before it afterwards; at least two are left then, for one alone is to blame for the death.
local MOST = 1000
local function held_in_order(inc)
  local flat = call('HGETALL', P .. 'processing:' .. inc)
  local list, all = {}, #flat / 2
  for i = 1, #flat, 2 do
    local queue, suspect, taken_at, gates = taken_from(flat[i + 1])
    list[#list + 1] = { id = flat[i], queue = queue, suspect = suspect, taken_at = taken_at, gates = gates }
  end
  if all > MOST then
    table.sort(list, function(a, b) return a.id > b.id end) -- most ids begin with the time at which they were made
    for i = math.min(MOST, all - 2) + 1, all do list[i] = nil end
  end
  for _, item in ipairs(list) do
    local value = call('HGET', P .. 'messages', item.id)
    local _, task, accepted, flags = head(value)
    item.there, item.task, item.accepted = value ~= false, task, accepted or 0
    item.once = has_flag(flags, $FLAG_AT_MOST_ONCE)
  end
  table.sort(list, function(a, b)
    if a.accepted ~= b.accepted then return a.accepted < b.accepted end
    return a.id < b.id
  end)
  return list, all
end

-- Where a message goes whose process died under it: a place, and its due time if that is 'scheduled'.
local function verdict(item, counted, now)
  local age = now - item.accepted
  local discard = setting('discard_after', item.task)
  if discard and item.accepted > 0 and age > discard then return 'dead', 'discarded: older than discard_after' end
  if not counted then return 'suspect' end
  local crashes = call('HINCRBY', P .. 'crashes', item.id, 1)
  if crashes >= (setting('max_crashes') or 3) then return 'dead', 'crashed' end
  if crashes == 1 then return 'suspect' end
  return 'scheduled', now + 1000 * 2 ^ (crashes - 2)
end

local function recover(inc, now, running, died, alone, cause)
  expect_common()
  local held, all = held_in_order(inc)
  for _, item in ipairs(held) do expect_queue(item.queue) end
  begin_writes()
  call('HDEL', P .. 'calls', inc)
  call('HDEL', P .. 'workers', inc)
  if #held == all then
    call('ZREM', P .. 'leases', inc)
    call('ZREM', P .. 'terms', inc)
    call('DEL', P .. 'processing:' .. inc)
  else
    call('ZADD', P .. 'leases', int(now), inc) -- it can do nothing any more, and the next reaper goes on with it
    for _, item in ipairs(held) do call('HDEL', P .. 'processing:' .. inc, item.id) end
  end
  local may_run = 0
  for _, item in ipairs(held) do
    if not running or running[item.id] then may_run = may_run + 1 end
  end
  local counted = may_run == 1 and (alone or all == 1)
  local back, suspects, moves = {}, {}, {}
  for _, item in ipairs(held) do
    local place, detail = 'queue', nil
    local may_have_run = not running or running[item.id]
    if end_revoked(item.queue, item.id, may_have_run and 'done' or 'discarded') then
      place = 'revoked'
    elseif not item.there then
      place = 'dangling'
    elseif item.once and may_have_run then
      place, detail = 'dead', 'abandoned'
    elseif died and may_have_run then
      place, detail = verdict(item, counted, now)
    elseif item.suspect then
      place = 'suspect'
    end
    local to = (place == 'queue' and back) or (place == 'suspect' and suspects)
    if to then
      to[item.queue] = to[item.queue] or {}
      table.insert(to[item.queue], item.id)
    elseif place == 'scheduled' then
      schedule(item.queue, item.id, detail)
    elseif place == 'dead' then
      bury(item.queue, item.id, now, detail, cause)
      tell_end(item.id, detail == 'crashed' and cause ~= '' and $FAILURE .. cause or $GIVEN_UP .. detail)
    end
    count(item.queue, place == 'dangling' and 'dangling' or 'recovered')
    if place ~= 'dangling' and place ~= 'revoked' and died and counted and may_have_run then
      count(item.queue, 'crashes')
    end
    moves[#moves + 1] = item.id
    moves[#moves + 1] = item.queue
    moves[#moves + 1] = place
  end
  for queue, list in pairs(back) do put_back(queue, list, now) end
  for queue, list in pairs(suspects) do push_suspects(queue, list, now, true) end
  for _, item in ipairs(held) do free(item.gates, item.taken_at, now) end
  save_gates(now)
  return moves, #held < all
end
