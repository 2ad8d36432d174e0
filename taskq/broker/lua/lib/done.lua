-- Messages whose task has returned, a group of them: part of fetch.lua, whose `run` this uses.

-- What the processing hash has for these ids, and whether it has nothing else. Mostly a batch is settled as it was taken,
-- whole and in order; then one walk through the hash is enough, while looking up each id would walk through half of it.
local function held_values(ids)
  local n = #ids
  if n == 1 then return { call('HGET', run.processing, ids[1]) }, false end
  if call('HLEN', run.processing) ~= n then return call('HMGET', run.processing, unpack(ids)), false end
  local flat, values = call('HGETALL', run.processing), {}
  for i = 1, n do
    if flat[2 * i - 1] ~= ids[i] then return call('HMGET', run.processing, unpack(ids)), false end
    values[i] = flat[2 * i]
  end
  return values, true
end

local function settle_done(blob, ttl, first_result, n_results)
  local ids = {}
  for i = 1, #blob, 16 do ids[#ids + 1] = sub(blob, i, i + 15) end
  local held, all = held_values(ids)
  local mine, results, n, tally, special = {}, {}, 0, {}, run.some_wait
  for i = 1, #ids do
    local value = held[i]
    if value then
      n = n + 1
      mine[n], results[n] = ids[i], ARGV[first_result + i - 1]
      tally[value] = (tally[value] or 0) + 1
    end
  end
  run.out[2] = run.out[2] + #ids - n
  if n == 0 then return end
  for value in pairs(tally) do special = special or find(value, '\n', 1, true) end
  local finish = special and flow.finish_done -- made before the first write: it checks the types of what it writes to
  for value, times in pairs(tally) do first_write('HINCRBY', P .. 'counters', taken_from(value) .. '|done', times) end
  local fine, why = pcall(forget, mine)
  if not fine then -- the key is of another type: nothing has ended
    for value, times in pairs(tally) do call('HINCRBY', P .. 'counters', taken_from(value) .. '|done', -times) end
    error(why)
  end
  if all then call('DEL', run.processing) else call('HDEL', run.processing, unpack(mine)) end
  if no_room and n_results > 0 then
    for value, times in pairs(tally) do count((taken_from(value)), 'unkept', times) end
  end
  if special then finish(mine, n_results > 0 and results, tally, ttl)
  elseif n_results > 0 and not no_room then
    local prefix = P .. 'result:'
    for i = 1, n do call('PSETEX', prefix .. mine[i], ttl, results[i]) end
  end
end
