-- Unique work at its acceptance: part of accept.lua, whose `batch` this uses.

-- The answer if another message already is this work; else the lock is this message's from now on, unless the queue is full
-- and refuses it. A debounced call replaces one that still waits for its time and never began, and puts that time off, but
-- not beyond the longest wait (letter d: ms, colon, ms at most; 0: no limit). It runs from the queue of the last call.
local function waits_for_its_time(id, value)
  local _, _, _, flags, at = head(value)
  if not at or not extras(value, flags, at)[$FIELD_DEBOUNCE] or call('HEXISTS', P .. 'crashes', id) == 1 then return false end
  return call('ZSCORE', P .. 'schedule', id) and true
end

local function first_with_lock(id, found, stored, full)
  local lock, mode, ms = lock_in(found[$FIELD_LOCK])
  local by = batch.locks[lock] and batch.locks[lock][1] or holder(lock, mode, now)
  if not by then
    if not full then batch.locks[lock] = { id, mode, ms } end
    return nil
  end
  if found[$FIELD_DEBOUNCE] then
    local wait, longest = string.match(found[$FIELD_DEBOUNCE], '^(%d+):(%d+)$')
    local old = not batch.given[by] and call('HGET', P .. 'messages', by)
    if old and not waits_for_its_time(by, old) then -- its time has come: this call is the first of a new series
      if not full then batch.locks[lock] = { id, mode, ms } end
      return nil
    end
    local due, accepted = now + tonumber(wait), old and sub(old, 3, 10) or batch.stamp
    if longest ~= '0' then due = math.min(due, (struct.unpack('>d', accepted)) + tonumber(longest)) end
    local from = batch.replaced[by] and batch.replaced[by].from or old and head(old) or batch.given[by]
    batch.replaced[by] = { value = sub(stored, 1, 2) .. accepted .. sub(stored, 11), due = due, from = from, found = found }
  end
  return $SAME .. string.gsub(by, '.', function(c) return string.format('%02x', byte(c)) end) .. '.'
end

-- Let a debounced call take the place of another. In another queue it was accepted there, and superseded here.
local function replace(id, new)
  call('HSET', P .. 'messages', id, new.value)
  call('ZADD', P .. 'schedule', int(new.due), id)
  local queue = head(new.value)
  mark(queue, $MARK_LIMITED, true)
  if new.found[$FIELD_PRIORITY] or new.found[$FIELD_FAIR] then mark(queue, $MARK_RANKED, true) end
  if queue == new.from then return end
  count(new.from, 'scheduled', -1)
  count(new.from, 'discarded')
  count(queue, 'accepted')
  count(queue, 'scheduled')
end
