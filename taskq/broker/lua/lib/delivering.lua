-- Results: stored, and handed to the callers that wait for them.

-- Store a result ('' for none) and hand it to the callers that wait. `waiting` says whether any does.
local function deliver(id, result, ttl, waiting)
  if result ~= '' and not no_room then call('SET', P .. 'result:' .. id, result, 'PX', ttl) end
  if not waiting then return end
  local inboxes = call('HGET', P .. 'waiters', id)
  if not inboxes then return end
  call('HDEL', P .. 'waiters', id)
  for inbox in string.gmatch(inboxes, '%S+') do
    local key = P .. 'inbox:' .. inbox
    call('RPUSH', key, struct.pack('B', #id) .. id .. result)
    call('PEXPIRE', key, 60000)
  end
end

local function anybody_waits() return call('HLEN', P .. 'waiters') > 0 end

-- The result of an end that no worker tells is kept as the settings say.
local function tell_end(id, result) deliver(id, result, setting('result_ttl') or 3600000, anybody_waits()) end

-- Messages end for a reason outside their task: tell the callers that wait.
local function discard(queue, id, counter, why)
  ended(queue, { id }, counter)
  tell_end(id, $DISCARDED .. why)
end
