--@include base
-- Read results, and ask to be told of those that are not there yet.
--
-- KEYS  1 prefix
-- ARGV  1 inbox of the asking process ('' to only look), then ids
-- Returns for each id: the result (bytes), 0 if nothing is known of the id, 1 if its message is alive,
--       or {reason and detail of its dead letter}.
-- Again: the same.
local inbox = ARGV[1]
local out, waiting = {}, {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local answer = call('GET', P .. 'result:' .. id)
  if not answer then
    local reason = call('HGET', P .. 'reasons', id)
    if reason then
      answer = { reason }
    elseif call('HEXISTS', P .. 'messages', id) == 1 then
      answer = 1
      if inbox ~= '' then waiting[#waiting + 1] = id end
    else
      answer = 0
    end
  end
  out[#out + 1] = answer
end
if #waiting > 0 then
  begin_writes()
  for _, id in ipairs(waiting) do
    local inboxes = call('HGET', P .. 'waiters', id)
    if not inboxes then
      call('HSET', P .. 'waiters', id, inbox)
    elseif not find(inboxes, inbox, 1, true) then
      call('HSET', P .. 'waiters', id, inboxes .. ' ' .. inbox)
    end
  end
end
return out
