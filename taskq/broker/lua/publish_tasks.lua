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
-- What a worker announces for all: the settings that scripts and reapers use, its tasks, their queues and limits. Limits set
-- by hand stay in force. A worker announces it again every minute, in case the server has lost it. If workers differ, the
-- one that was started last is right; for each name, `published` has the time at which that worker first announced it.
--
-- KEYS  1 prefix
-- ARGV  1 when the caller said this first (ms, as returned; '' if it never did), 2 settings: 'name=number' between spaces,
--       without a number for one that is not to be, then for each task: task, queue, its limits ('' for none), a line each:
--       kind (o: of all that is in the queue, s: of the task in a queue it shares, k: for each key), ms between two (0: no
--       rate), burst, slots (0: any number)
-- Returns {when the caller said this first, how many gates may have opened, how many settings and tasks were changed}.
-- Again, with that time: nothing is left to be changed.
local first, now = tonumber(ARGV[1]), clock()
local function said(name) return tonumber(call('HGET', P .. 'published', name) or '') or 0 end
local since = first or math.ceil(now)
if not first then -- whatever the clock did meanwhile
  since = math.max(since, said('=') + 1)
  for i = 3, #ARGV, 3 do since = math.max(since, said(ARGV[i]) + 1) end
end

expect_common()
expect('hash', { 'published' })
expect('zset', { 'terms' })
begin_writes()
local opened, changed = 0, 0

-- Whether the caller's announcement counts.
local function say(name)
  local at = said(name)
  if at < since then call('HSET', P .. 'published', name, int(since)) end
  return at <= since
end

local function put(key, name, value)
  local there = call('HGET', P .. key, name) or ''
  if there == value then return false end
  if value == '' then call('HDEL', P .. key, name) else call('HSET', P .. key, name, value) end
  changed = changed + 1
  return true
end

if ARGV[2] ~= '' and say('=') then
  for name, value in string.gmatch(ARGV[2], '(%S+)=(%S*)') do
    if name == 'lease' then -- all share it, so it is the longest of those in use
      local longest = call('ZRANGE', P .. 'terms', -1, -1, 'WITHSCORES')[2]
      value = int(math.max(tonumber(value), tonumber(longest or '0')))
    end
    put('settings', name, value)
  end
end
for i = 3, #ARGV, 3 do
  local task, queue, limits = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if say(task) then
    put('tasks', task, queue)
    if limits ~= '' then mark(queue, $MARK_LIMITED, true) end
    if put('limits', task, limits) then opened = opened + open_all(task, now) end
  end
end
watch_controls()
return { int(since), opened, changed }
