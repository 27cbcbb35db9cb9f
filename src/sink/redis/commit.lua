-- Adds messages of one sender to the stream, and its count with them: all of that, or nothing.
--
-- KEYS: stream, counts, claims, ranks: the later a sender sent something, the higher its rank
-- ARGV: the sender's id, epoch and owner of its claim, MAXLEN or '', number of the first message by
--   which it is counted, what to store after the count: the checksum of the last message, in
--   hexadecimal digits after a space, or ''; then for each batch: how many messages, how many of the following are fields
--   and values that all of them have, those, an array in MessagePack of their numbers in digits, one of
--   their headers or '' if none has one, and their payloads
--
-- Returns 0 (done), 1 (a newer claim of this sender has been made: nothing is written) or 2 (there are
-- messages missing in between: nothing is written), and the sender's count.
local id, epoch, owner, maxlen = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local number, checksum = tonumber(ARGV[5]), ARGV[6]
local count = tonumber(string.match(redis.call('HGET', KEYS[2], id) or '0', '^%d+'))
local claim = redis.call('HGET', KEYS[3], id)
local rank = tonumber(redis.call('ZSCORE', KEYS[4], id) or '-1')

-- How many senders are remembered, and how many of those that were silent for longest are forgotten when
-- one is added: a few, so that nobody waits for long.
local most, forgotten_at_once = 1000000, 10
-- How many ranks a sender may be below the highest before it is given a new one, so that most commits of
-- senders that take turns change none.
local step = 1000

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

-- What happens for each message is what a commit costs. Numbers come quicker out of one array than as
-- an argument each, or than Lua could write them.
local call, unpack, argv, stream = redis.call, unpack, ARGV, KEYS[1]

-- The first one decides: Redis refuses it for want of memory or disk, or none. An XTRIM at the end
-- could be refused on its own, when it is too late to write nothing.
local function add(...)
    if maxlen == '' then
        call('XADD', stream, '*', ...)
    else
        call('XADD', stream, 'MAXLEN', '~', maxlen, '*', ...)
    end
end

local known = count
local position, last = 7, #argv
while position <= last do
    local messages, fields = tonumber(argv[position]), tonumber(argv[position + 1])
    local from, to = position + 2, position + 1 + fields
    local numbers, headers, before = cmsgpack.unpack(argv[to + 1]), {}, to + 2
    if argv[before] ~= '' then
        headers = cmsgpack.unpack(argv[before])
    end
    for index = math.max(count + 1 - number, 0) + 1, messages do
        local shown, header, payload = numbers[index], headers[index] or '', argv[before + index]
        if header == '' then
            add('number', shown, 'payload', payload, unpack(argv, from, to))
        else
            add('number', shown, 'header', header, 'payload', payload, unpack(argv, from, to))
        end
    end
    number = number + messages
    count = math.max(count, number - 1)
    position = before + messages + 1
end

if count > known then
    call('HSET', KEYS[2], id, string.format('%.0f', count) .. checksum)
    if held < epoch then
        call('HSET', KEYS[3], id, ARGV[2] .. ' ' .. owner)
    end
    -- Not a time: clocks jump.
    local highest = tonumber(call('ZREVRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2] or '0')
    if rank < 0 or highest - rank >= step then
        call('ZADD', KEYS[4], highest + 1, id)
    end
    if rank < 0 then
        local over = math.min(call('ZCARD', KEYS[4]) - most, forgotten_at_once)
        if over > 0 then
            local oldest = call('ZRANGE', KEYS[4], 0, over - 1)
            call('HDEL', KEYS[2], unpack(oldest))
            call('HDEL', KEYS[3], unpack(oldest))
            call('ZREM', KEYS[4], unpack(oldest))
        end
    end
end
return {0, count}
