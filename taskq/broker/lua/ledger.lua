--@include base
--@include types
--@include gated
-- Correct the ledger: recount what is scheduled and what stands in lines. Book what a queue misses as lost and what it has
-- too much as accepted, so that the accepted messages are again those that have ended plus those that are here.
--
-- KEYS  1 prefix
-- ARGV  for each queue that does not balance: queue, accepted messages that are nowhere (negative: too few were accepted)
-- Returns how many numbers were corrected.
-- Again: 0, but for the queues named.
local MOST = 5000 -- scheduled messages that are counted in one call
expect('hash', { 'counters', 'messages', 'gates' })
expect('zset', { 'schedule' })
local numbers, flat = {}, call('HGETALL', P .. 'counters')
for i = 1, #flat, 2 do numbers[flat[i]] = tonumber(flat[i + 1]) or 0 end

-- What a counter should be, by queue; if it differs it is changed.
local wrong = 0
local function compare(what, right)
  for field, n in pairs(numbers) do
    local queue = string.match(field, '^(.*)|' .. what .. '$')
    if queue and n ~= (right[queue] or 0) then
      count(queue, what, (right[queue] or 0) - n)
      wrong = wrong + 1
    end
    if queue then right[queue] = nil end
  end
  for queue, n in pairs(right) do
    count(queue, what, n)
    wrong = wrong + 1
  end
end
local function total(what)
  local n = 0
  for field, number in pairs(numbers) do
    if sub(field, -#what - 1) == '|' .. what then n = n + number end
  end
  return n
end

local later = call('ZCARD', P .. 'schedule')
if later ~= total('scheduled') and later <= MOST then
  local right = {}
  for _, id in ipairs(call('ZRANGE', P .. 'schedule', 0, -1)) do
    local queue = head(call('HGET', P .. 'messages', id))
    if queue then right[queue] = (right[queue] or 0) + 1 end
  end
  compare('scheduled', right)
end

local right, all = in_lines()
if right and all ~= total('gated') then compare('gated', right) end

for i = 1, #ARGV, 2 do
  local missing = tonumber(ARGV[i + 1])
  if missing > 0 then count(ARGV[i], 'dangling', missing) else count(ARGV[i], 'accepted', -missing) end
  wrong = wrong + 1
end
begin_writes()
call('HDEL', P .. 'counters', '?|dangling') -- an earlier version booked here what it could not place
write_counts()
return wrong
