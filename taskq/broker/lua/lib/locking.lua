-- Unique work at its acceptance: part of accept.lua, whose locals this uses.

-- The answer if another message is it already; else its lock is this one's from now on, unless the queue is full and it
-- is refused. A debounced call replaces the message that still waits for its time, and puts that off; not beyond the
-- longest wait (letter d: ms, colon, ms at most; 0: no limit).
local function first_with_lock(id, found, stored, full)
  local lock, mode, ms = lock_in(found.u)
  local by = locks[lock] and locks[lock][1] or holder(lock, mode, now)
  if not by then
    if not full then locks[lock] = { id, mode, ms } end
    return nil
  end
  if found.d then
    local wait, longest = string.match(found.d, '^(%d+):(%d+)$')
    local old = not given[by] and call('HGET', P .. 'messages', by)
    if old and not call('ZSCORE', P .. 'schedule', by) then -- it has come to its turn: this is the first of a new series
      if not full then locks[lock] = { id, mode, ms } end
      return nil
    end
    local due, accepted = now + tonumber(wait), old and sub(old, 3, 10) or stamp
    if longest ~= '0' then due = math.min(due, (struct.unpack('>d', accepted)) + tonumber(longest)) end
    replaced[by] = { sub(stored, 1, 2) .. accepted .. sub(stored, 11), due }
  end
  return '~' .. string.gsub(by, '.', function(c) return string.format('%02x', byte(c)) end) .. '.'
end
