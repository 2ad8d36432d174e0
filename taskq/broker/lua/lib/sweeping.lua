-- Room in a queue with a maximum length: messages there that must not run any more take no room. A queue with such a length
-- whose messages may expire has a mark.

--@lazy ends: ending delivering revoking expiring
local swept, some_revoked = {}, nil -- queue -> what is not to run: {id, value, key, rank}; whether any was revoked

-- Of the first thousand that wait in a list or a sorted set, those that were revoked, and those that have expired as far as
-- each hundred has any.
local function find_dead(dead, key, read, may_expire)
  for first = 0, 900, 100 do
    local ids, before = call(read, key, first, first + 99), #dead
    if #ids == 0 or not (may_expire or some_revoked) then return end
    local revoked = some_revoked and call('HMGET', P .. 'revoked', unpack(ids)) or {}
    local values = may_expire and call('HMGET', P .. 'messages', unpack(ids)) or {}
    for i, id in ipairs(ids) do
      local value = values[i] or revoked[i] and call('HGET', P .. 'messages', id)
      if value and (revoked[i] or is_over(value, now)) then
        dead[#dead + 1] = { id, value, key, read == 'ZRANGE' and tonumber(call('ZSCORE', key, id)) }
      end
    end
    may_expire = may_expire and #dead > before
  end
end

local function dead_in(queue)
  if not swept[queue] then
    swept[queue], some_revoked = {}, call('EXISTS', P .. 'revoked') == 1
    find_dead(swept[queue], P .. 'queue:' .. queue, 'LRANGE', marked(queue, $MARK_BOUNDED))
    if marked(queue, $MARK_RANKED) then find_dead(swept[queue], P .. 'ranked:' .. queue, 'ZRANGE', marked(queue, $MARK_BOUNDED)) end
  end
  return #swept[queue]
end

-- End them: other messages were accepted into their room.
local function sweep()
  if not next(swept) then return end
  for queue, dead in pairs(swept) do
    local gone = {}
    for _, item in ipairs(dead) do
      local id, value, key, rank = unpack(item)
      if rank then
        call('ZREM', key, id)
        gone[#gone + 1] = { value, rank }
      else
        call('LREM', key, 1, id)
      end
      if not ends.end_revoked(queue, id, 'discarded', value) then ends.end_expired(queue, id, value, now) end
    end
    if gone[1] then give_back(queue, gone) end
  end
end
