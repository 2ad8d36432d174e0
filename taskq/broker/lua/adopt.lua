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
-- Look at queues that nobody serves. Messages that are there because their task used to have that queue go to the line of
-- the task, for workers that know it under its new queue. Messages whose task no live worker knows are dead letters after
-- their time. The rest was sent there on purpose and waits for its workers.
--
-- KEYS  1 prefix
-- ARGV  1 ms after which a task that nobody knows is given up, 2 what to keep with such a dead letter (opaque), then queues
-- Returns for each that nobody serves: queue, messages that go on waiting there, task of the first ('' for none), how
--       many were handed on, how many given up.  Again: looks at more; of each queue at 200 messages a call.
local now, patience, detail, out = clock(), tonumber(ARGV[1]), ARGV[2], {}
local noted = tonumber(call('HGET', P .. 'homes', '=') or 'inf')

-- Whether a message of a task is in a queue because that used to be the task's own.
local function at_home(queue, task, accepted)
  local homes = call('HGET', P .. 'homes', task)
  if not homes then return false end
  if find(homes, ' ' .. queue .. ' ', 1, true) then return true end
  if queue ~= task and (accepted < noted or call('HEXISTS', P .. 'guests', queue .. '|' .. task) == 1) then return false end
  call('HSET', P .. 'homes', task, homes .. queue .. ' ')
  return true
end

-- What all live workers run; nil if some do not say.
local everything
local function all_that_runs()
  if call('HLEN', P .. 'sets') > call('HLEN', P .. 'runs') or call('HLEN', P .. 'runs') > 1000 then return nil end
  return table.concat(call('HVALS', P .. 'runs'))
end

-- Whether no live worker has known a task for long enough: the time since when is kept, as long as somebody looks.
local function unknown_for_long(queue, task, accepted)
  if everything == nil then everything = all_that_runs() or false end
  if not everything or everything == '' or find(everything, ' ' .. task .. ' ', 1, true) then return false end
  local field = queue .. '|' .. task
  local since, last = string.match(call('HGET', P .. 'strays', field) or '', '^(%d+) (%d+)$')
  if not since or now - last > patience + 300000 then since = int(now) end
  call('HSET', P .. 'strays', field, since .. ' ' .. int(now))
  return now - since >= patience and now - accepted >= patience
end

local function look(queue)
  local kept, first, handed, given_up = {}, '', 0, 0
  for _, id in ipairs(pop(queue, 200)) do
    local value = call('HGET', P .. 'messages', id)
    local _, task, accepted = head(value)
    if not value then count(queue, 'dangling')
    elseif task and at_home(queue, task, accepted) and served_by(queue, task .. '#t') ~= '' then
      mark(queue, $MARK_LIMITED, true)
      wait_at(task .. '#t', queue)
      limits_of(task).names = nil
      put_back(queue, { id }, now, task .. '#t')
      handed = handed + 1
    elseif task and unknown_for_long(queue, task, accepted) then
      bury(queue, id, now, 'unknown-task', detail)
      tell_end(id, $FAILURE .. detail)
      given_up = given_up + 1
    else
      kept[#kept + 1] = id
      if #kept == 1 then first = task or '' end
    end
  end
  if #kept > 0 then offer(queue, kept, now, true) end
  local suspect = call('LINDEX', P .. 'suspects:' .. queue, 0)
  local _, task, accepted = head(suspect and call('HGET', P .. 'messages', suspect))
  if task and at_home(queue, task, accepted) then
    announce_suspects(queue, now, served_by(queue, task .. '#t'))
  end
  for _, what in ipairs({ queue, waiting(queue), first, handed, given_up }) do out[#out + 1] = what end
end

expect_common()
expect('hash', { 'homes', 'guests', 'strays' })
for i = 3, #ARGV do expect_queue(ARGV[i]) end
begin_writes()
for i = 3, #ARGV do
  if call('HEXISTS', P .. 'serving', ARGV[i]) == 0 and not marked(ARGV[i], $MARK_PAUSED) then look(ARGV[i]) end
end
save_gates(now)
write_counts()
return out
