//! What has to happen in Redis in one step.
//!
//! The chord scripts do on Celery's keys what Celery 5.7's do, in the same order, so that workers of both kinds count
//! together and only one of them sends the body.

use redis::Script;

/// All scripts; Redis is sent a script's text once, later its digest.
pub(super) struct Scripts {
    pub(super) replace: Script,
    pub(super) join: Script,
    pub(super) close: Script,
    pub(super) hold: Script,
    pub(super) let_go: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            replace: Script::new(REPLACE),
            join: Script::new(JOIN),
            close: Script::new(CLOSE),
            hold: Script::new(HOLD),
            let_go: Script::new(LET_GO),
        }
    }
}

/// Writes and announces a document if the key holds what the caller believes: `ARGV[3]`, or nothing if there is no
/// such argument. Answers with whether it did, and else with what the key does hold. Whether that may be replaced is
/// decided by the caller, who knows how to read it, so no document is ever parsed here.
const REPLACE: &str = r"
local key, document, seconds, believed = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('GET', key)
if (held or nil) ~= believed then
    return {0, held}
end
redis.call('SETEX', key, seconds, document)
redis.call('PUBLISH', key, document)
return {1, false}
";

/// Counts a member. Answers with a word and the milliseconds that a foreign claim still lasts: `waiting` (others are
/// missing, the size is not known, or the body was sent), `claimed` (the caller sends the body), `taken` (somebody
/// else is about to). A claim that the caller holds already stays its own, so that an answer lost on the way can be
/// asked for again.
const JOIN: &str = r"
local parts, extra, size, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, claim = KEYS[5], KEYS[6]
local id, part, score = ARGV[1], ARGV[2], ARGV[3]
local seconds, lease, token = ARGV[4], ARGV[5], ARGV[6]
local holder = redis.call('GET', claim)
if holder == 'done' then
    return {'waiting', 0}
end
local member = id .. ':' .. score
if redis.call('SISMEMBER', done, member) == 0 then
    redis.call('ZADD', parts, score, part)
    redis.call('SADD', done, member)
end
local counted = redis.call('ZCARD', parts)
for _, key in ipairs({parts, extra, size, done, group}) do
    redis.call('EXPIRE', key, seconds)
end
local added = tonumber(redis.call('GET', extra) or 0)
local wanted = tonumber(redis.call('GET', size) or -1)
if wanted < 0 or counted ~= wanted + added then
    return {'waiting', 0}
end
if holder == token then
    redis.call('EXPIRE', claim, lease)
    return {'claimed', 0}
end
if redis.call('SET', claim, token, 'NX', 'EX', lease) then
    return {'claimed', 0}
end
return {'taken', redis.call('PTTL', claim)}
";

/// Ends a chord whose body was sent, if the caller is the one who was to send it.
const CLOSE: &str = r"
local claim, token, seconds = KEYS[1], ARGV[1], ARGV[2]
if redis.call('GET', claim) ~= token then
    return 0
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('SET', claim, 'done', 'EX', seconds)
return 1
";

/// Begins a dedupe window, unless it is another task's; answers with that one, or nothing.
const HOLD: &str = r"
local window, of, id, millis = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local held = redis.call('GET', window)
if held and held ~= id then
    return held
end
redis.call('SET', window, id, 'PX', millis)
redis.call('SET', of, window, 'PX', millis)
return false
";

/// Ends the dedupe window of a task, if it still holds one. Without a second key it is the one that is noted of the task.
const LET_GO: &str = r"
local of, window, id = KEYS[1], KEYS[2], ARGV[1]
window = window or redis.call('GET', of)
redis.call('DEL', of)
if not window or redis.call('GET', window) ~= id then
    return 0
end
return redis.call('DEL', window)
";
