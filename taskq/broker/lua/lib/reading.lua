-- Reading what is stored: heads of messages, marks of queues, settings.

local function has_flag(flags, flag) return math.floor((flags or 0) / flag) % 2 == 1 end

-- queue, task, accepted (ms), flags, and where what follows the names begins; nothing if this is not a head (see
-- taskq/message/head.py for the layout).
local function head(value)
  if not value or byte(value, 1) ~= 1 then return nil end
  local at = 11
  if has_flag(byte(value, 2), $FLAG_EXPIRES) then at = 19 end
  local task_len = byte(value, at)
  local queue_at = task_len and at + 1 + task_len
  local queue_len = queue_at and byte(value, queue_at)
  if not queue_len or queue_at + queue_len > #value then return nil end
  return sub(value, queue_at + 1, queue_at + queue_len), sub(value, at + 1, queue_at - 1),
    (struct.unpack('>d', sub(value, 3, 10))), byte(value, 2), queue_at + queue_len + 1
end

-- Letters that say what is special about a queue, so that a queue without them pays nothing: p paused, r has ranked
-- messages, l has tasks with limits, o was given at-most-once messages whose own queue is another, x has a maximum length
-- and messages that expire. The letters of `*` hold for all queues.
local marks_of = {}
local function marks(queue)
  local letters = marks_of[queue]
  if not letters then
    local own, common = unpack(rare ~= false and call('HMGET', P .. 'marks', queue, '*') or {})
    letters = (own or '') .. (common or '')
    marks_of[queue] = letters
  end
  return letters
end

local function setting(name, task)
  local value = task and call('HGET', P .. 'settings', name .. ':' .. task)
  value = value or call('HGET', P .. 'settings', name)
  return value and tonumber(value)
end
