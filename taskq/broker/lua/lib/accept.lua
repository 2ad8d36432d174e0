-- Accept messages: each is looked at first, then all that are accepted are written at once. Uses `now` of the
-- script it is part of.

-- What the parts of this share: what is to be written, and where; `special` if any of it is not plain.
local stamp, fields, queues, order, given = struct.pack('>d', now), {}, {}, {}, {}
local batch = {
  stamp = stamp, fields = fields, given = given, special = false,
  locks = {}, replaced = {}, -- of unique work: lock -> id, mode and ms; id -> what takes the place of a debounced message
}
--@lazy flow: ranked unique locking sweeping

-- Whether a message or a result of this id exists. Ids made by taskq are checked too: if a call was given
-- up, repeated with its id, and then executed late after all, it must not put the id into its queue a second time.
local function used(id)
  return given[id] or call('HEXISTS', P .. 'messages', id) == 1 or call('EXISTS', P .. 'result:' .. id) == 1
end

-- What the options of a message ask for: its answer, due time (ms) or nil, expiry stamp, the queue's maximum length, whether
-- the queue is not its task's own, whether the due time is a time of day.
local function read_options(options, queue)
  local due, answer, expiry, most, elsewhere, of_day = nil, $ACCEPTED, '', nil, false, false
  for word, digits in string.gmatch(options, '(%a)(%d*)') do
    local n = tonumber(digits)
    if word == $OPTION_WARN then
      elsewhere = true
      if call('HEXISTS', P .. 'serving', queue) == 0 then answer = $UNSERVED end
    elseif word == $OPTION_DELAY then due = now + n
    elseif word == $OPTION_DUE then due, of_day = n, true
    elseif word == $OPTION_EXPIRES_IN then expiry = struct.pack('>d', now + n)
    elseif word == $OPTION_EXPIRES_AT then expiry = struct.pack('>d', n)
    elseif word == $OPTION_MOST then most = n
    end
  end
  if due and due <= now then due = nil end
  return answer, due, expiry, most, elsewhere, of_day
end

-- Look at a message as its producer sent it; answers as enqueue.lua says.
local function accept(id, value, options)
  local queue_at = 4 + byte(value, 3)
  local queue = sub(value, queue_at + 1, queue_at + byte(value, queue_at))
  local answer, due, expiry, flags, most, elsewhere, of_day, found = $ACCEPTED, nil, '', byte(value, 2), nil, false, nil, nil
  if options ~= '' then
    answer, due, expiry, most, elsewhere, of_day = read_options(options, queue)
    if expiry ~= '' then flags = flags + $FLAG_EXPIRES end
  end
  local place = queues[queue]
  if not place then
    place = { now = {}, later = {} }
    queues[queue] = place
    order[#order + 1] = queue
  end
  local stored = sub(value, 1, 1) .. string.char(flags) .. stamp .. expiry .. sub(value, 3)
  batch.special = batch.special or flags >= $FLAG_MORE or most ~= nil or elsewhere
  if flags >= $FLAG_MORE then
    found = flow.extras(value, flags, queue_at + 1 + byte(value, queue_at))
    if found[$FIELD_DEBOUNCE] then due, of_day = now + tonumber(string.match(found[$FIELD_DEBOUNCE], '^%d+')), false end
  end
  if used(id) then
    answer = $DUPLICATE
  else
    local full = most and flow.all_waiting(queue) + #place.now >= most
    if full then full = flow.all_waiting(queue) - flow.dead_in(queue) + #place.now >= most end
    local first = found and found[$FIELD_LOCK] and flow.first_with_lock(id, found, stored, full) -- that needs no room
    answer = first or full and $FULL or answer
  end
  if answer == $ACCEPTED or answer == $UNSERVED then
    fields[#fields + 1], fields[#fields + 2] = id, stored
    given[id] = queue
    if elsewhere then
      place.guests = place.guests or {}
      place.guests[sub(value, 4, queue_at - 1)] = true
      if has_flag(flags, $FLAG_AT_MOST_ONCE) then place.once = true end -- from their own queue workers take one at a time
    end
    if found then
      if found[$FIELD_PRIORITY] or found[$FIELD_FAIR] then
        place.ranked = place.ranked or {}
        place.ranked[id] = found
      end
      if found[$FIELD_LIMITED] then place.limited = true end
    end
    if most and expiry ~= '' then place.expiring = true end
    if due then
      place.later[#place.later + 1] = { id, due, of_day }
    else
      place.now[#place.now + 1] = id
    end
  end
  return answer
end

-- Write what was accepted, each message into its queue or the schedule. A full server refuses the first write.
local function write_accepted()
  local special = batch.special
  -- The types of what is written to, before the first write; that of messages was seen, that of a single queue is by the
  -- first write itself.
  call('HLEN', P .. 'counters')
  for _, queue in ipairs(order) do
    if special then flow.look_before(queue) end
    if special or #order > 1 or #queues[queue].later > 0 then
      call('LLEN', P .. 'queue:' .. queue)
      call('ZCARD', P .. 'schedule')
    end
  end
  if special then
    if #fields > 0 then
      call('HSET', P .. 'messages', unpack(fields))
      flow.sweep()
    end
    for lock, by in pairs(batch.locks) do flow.take_lock(lock, by[2], by[3], by[1], now) end
  end
  for _, queue in ipairs(order) do
    local place = queues[queue]
    for _, item in ipairs(place.later) do schedule(queue, item[1], item[2], item[3]) end
    if place.ranked then flow.mark(queue, $MARK_RANKED, true) end
    if place.limited then flow.mark(queue, $MARK_LIMITED, true) end
    if place.expiring then flow.mark(queue, $MARK_BOUNDED, true) end
    if place.once then flow.mark(queue, $MARK_ONCE, true) end
    for task in pairs(place.guests or {}) do call('HSET', P .. 'guests', queue .. '|' .. task, 1) end
    if place.ranked then flow.offer(queue, place.now, now, false, place.ranked)
    elseif #place.now > 0 then push(queue, place.now, now)
    end
    if #place.now + #place.later > 0 then count(queue, 'accepted', #place.now + #place.later) end
  end
  for id, new in pairs(batch.replaced) do flow.replace(id, new) end
  if #fields > 0 and not special then call('HSET', P .. 'messages', unpack(fields)) end
end
