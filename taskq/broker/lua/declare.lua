--@include base
--@include waiting
--@include entries
-- Put the periodic entries of a worker's code in place, if the server has not seen that code before; take away those that
-- earlier code of the same source declared and this does not. Code seen before is older than what came after it, or
-- the very same, and changes nothing. Whatever the code, what the server has lost is put back: an entry of the newest
-- code of which other keys still know, and the next tick of any entry.
--
-- KEYS  1 prefix
-- ARGV  1 source (what -A was), 2 revision of the code (16 characters), 3 '1' to put it in place even if it was seen,
--       4 since when its worker announces it (ms; '' if no worker asks), then name and entry of each
-- Returns {'new' | 'same' | 'old', name, 'added' | 'replaced' | 'removed' | 'restored', ...}; but for 'restored', for code
--       that changed nothing, what it would have.
-- Again: it is the same code.
local source, revision, force, since = ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])
local now = clock()
local seen = call('HGET', P .. 'revisions', source) or ''
local code = not find(seen, revision, 1, true) and 'new' or sub(seen, -16) == revision and 'same' or 'old'
local said = tonumber(call('HGET', P .. 'published', '@' .. source) or '') or 0
if since and code == 'new' and said >= since then code = said == since and 'same' or 'old' end -- `revisions` was lost
local out, mine, changed, lost, bare = { code }, ' ', {}, {}, {}
local function tell(name, what)
  out[#out + 1] = name
  out[#out + 1] = what
end

for i = 5, #ARGV, 2 do
  local name = ARGV[i]
  local before = call('HGET', P .. 'periodic', name)
  if code == 'same' and not before and call('HGET', P .. 'entry:' .. name, 'origin') == 'code' then
    lost[#lost + 1] = i
    tell(name, 'restored')
  elseif before ~= ARGV[i + 1] then
    changed[#changed + 1] = i
    tell(name, before and 'replaced' or 'added')
  end
  if code == 'same' and before and call('EXISTS', P .. 'entry:' .. name) == 0 then
    bare[#bare + 1] = name
    tell(name, 'restored')
  end
  mine = mine .. name .. ' '
end

-- What earlier code declared and no code does any more.
local function dropped()
  local others, gone = '', {}
  local declared = call('HGETALL', P .. 'declared')
  for i = 1, #declared, 2 do
    if declared[i] ~= source then others = others .. declared[i + 1] end
  end
  for name in string.gmatch(call('HGET', P .. 'declared', source) or '', '%S+') do
    local is_dropped = not find(mine, ' ' .. name .. ' ', 1, true) and not find(others, ' ' .. name .. ' ', 1, true)
    if is_dropped and call('HGET', P .. 'entry:' .. name, 'origin') == 'code' then
      tell(name, 'removed')
      gone[#gone + 1] = name
    end
  end
  return gone
end

-- Entries that wait for no tick, although they are not paused and tick on.
local function without_tick()
  local names, found = call('HKEYS', P .. 'periodic'), {}
  for first = 1, #names, 1000 do
    local some = { unpack(names, first, math.min(first + 999, #names)) }
    for i, due in ipairs(call('ZMSCORE', P .. 'ticks', unpack(some))) do
      local key = P .. 'entry:' .. some[i]
      if not due and call('HEXISTS', key, 'paused') == 0 then
        if call('HEXISTS', key, 'tick') == 1 or call('HEXISTS', key, 'last') == 0 then found[#found + 1] = some[i] end
      end
    end
  end
  return found
end

local gone, stopped = dropped(), without_tick()
begin_writes()
for _, i in ipairs(lost) do put_entry(ARGV[i], ARGV[i + 1], 'code', now) end
for _, name in ipairs(bare) do
  local due = tonumber(call('ZSCORE', P .. 'ticks', name) or '0')
  call('HSET', P .. 'entry:' .. name, 'origin', 'code', due > now and 'tick' or 'origin', due > now and int(due) or 'code')
end
for _, name in ipairs(stopped) do
  tell(name, 'restored')
  call('ZADD', P .. 'ticks', int(tonumber(call('HGET', P .. 'entry:' .. name, 'tick') or '') or now), name)
  ring(P .. 'alarm')
end
if code == 'old' and not force then return out end
call('HSET', P .. 'declared', source, mine)
if since then call('HSET', P .. 'published', '@' .. source, int(since)) end
if force or code == 'new' then
  for _, i in ipairs(changed) do put_entry(ARGV[i], ARGV[i + 1], 'code', now) end
  for _, name in ipairs(gone) do remove_entry(name) end
end
seen = string.gsub(seen, revision, '') .. ' ' .. revision
call('HSET', P .. 'revisions', source, sub(string.gsub(seen, '%s+', ' '), -1700)) -- the last hundred
return out
