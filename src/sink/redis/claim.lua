-- Makes a server the one whose commits of a sender count, and forgets senders that were not seen for
-- long.
--
-- KEYS: as in commit.lua
-- ARGV: the sender's id, the server's own, the least that the sender's count is to be, for how many
--   seconds senders are remembered
--
-- Returns the epoch of the claim and the sender's count.
local id, owner, least = ARGV[1], ARGV[2], tonumber(ARGV[3])
local count = tonumber(redis.call('HGET', KEYS[2], id) or '0')
local claim = redis.call('HGET', KEYS[3], id)
redis.call('ZSCORE', KEYS[4], id)

local epoch = 1
if claim then
    epoch = tonumber(string.match(claim, '^%d+')) + 1
end
redis.call('HSET', KEYS[3], id, string.format('%.0f %s', epoch, owner))
if least > count then
    count = least
    redis.call('HSET', KEYS[2], id, string.format('%.0f', count))
end

local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[4], now, id)
-- A few at a time, so that nobody waits for long.
local old = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, 100)
for _, forgotten in ipairs(old) do
    redis.call('HDEL', KEYS[2], forgotten)
    redis.call('HDEL', KEYS[3], forgotten)
    redis.call('ZREM', KEYS[4], forgotten)
end
return {epoch, count}
