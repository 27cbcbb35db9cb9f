-- Adds messages of one sender to the stream, and its count with them: all of that, or nothing.
--
-- KEYS: stream, counts, claims, when each sender was seen last
-- ARGV: the sender's id, epoch and owner of its claim, MAXLEN or '', number of the first message by
--   which it is counted; then for each batch: how many messages, the number of the first one as it is
--   shown, how many of the following are fields and values, those, the payloads
--
-- Returns 0 (done), 1 (a newer claim of this sender has been made: nothing is written) or 2 (there are
-- messages missing in between: nothing is written), and the sender's count.
local id, epoch, owner, maxlen = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local number = tonumber(ARGV[5])
local count = tonumber(redis.call('HGET', KEYS[2], id) or '0')
local claim = redis.call('HGET', KEYS[3], id)
local seen = tonumber(redis.call('ZSCORE', KEYS[4], id) or '0')

-- A claim that is older than this one is what is left where Redis has lost the newer ones. A newer one
-- of the same server is one whose answer got lost; which of its connections may send it knows itself.
local held, holder = 0, ''
if claim then
    held, holder = string.match(claim, '^(%d+) (%S+)$')
    held = tonumber(held)
end
if held >= epoch and holder ~= owner then
    return {1, count}
end
if number > count + 1 then
    return {2, count}
end

local call, unpack, argv = redis.call, unpack, ARGV
local known = count
local position, last = 6, #ARGV
while position <= last do
    local messages, shown = tonumber(ARGV[position]), tonumber(ARGV[position + 1])
    local fields = tonumber(ARGV[position + 2])
    position = position + 3
    local entry = {'XADD', KEYS[1]}
    if maxlen ~= '' then
        entry[3], entry[4], entry[5] = 'MAXLEN', '~', maxlen
    end
    entry[#entry + 1] = '*'
    for field = position, position + fields - 1 do
        entry[#entry + 1] = ARGV[field]
    end
    position = position + fields
    local base = #entry
    entry[base + 1], entry[base + 3] = 'number', 'payload'
    local size = base + 4
    for index = 0, messages - 1 do
        if number > count then
            -- Redis writes numbers out by itself, exactly up to 2^53.
            entry[base + 2], entry[base + 4] = shown + index, argv[position + index]
            -- The first one decides: Redis refuses it for want of memory or disk, or none.
            call(unpack(entry, 1, size))
            count = number
        end
        number = number + 1
    end
    position = position + messages
end

if count > known then
    call('HSET', KEYS[2], id, string.format('%.0f', count))
    if held < epoch then
        call('HSET', KEYS[3], id, ARGV[2] .. ' ' .. owner)
    end
    local now = tonumber(call('TIME')[1])
    if now - seen >= 3600 then
        call('ZADD', KEYS[4], now, id)
    end
end
return {0, count}
