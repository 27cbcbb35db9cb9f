#!/usr/bin/env bash
# Several servers, one Redis: when the first server is killed, a sender resumes at
# the second one, while two consumers of a group read the stream. Then the script
# checks that every message is there once.
#
# Needs bash, the coreutils, redis-server and redis-cli, and cargo to build
# framelet (FRAMELET=… names a program that is already built, with the feature
# redis). Leaves only the build.

# shellcheck disable=SC2317,SC2329 # some functions are called by their names in variables
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

COUNT=${COUNT:-200000}
SENDER=00112233445566778899aabbccddeeff

say() {
    printf '%s\n' "$*"
}

need redis-server redis-server
need redis-cli redis-tools
if [ -z "${FRAMELET:-}" ]; then
    command -v cargo >/dev/null || die "cargo was not found; https://rustup.rs installs it"
    say "building framelet (the first time, this may take a minute)"
    (cd "$ROOT" && cargo build --release --locked --quiet --features redis) || die "cargo build failed"
    target=${CARGO_TARGET_DIR:-target}
    case $target in /*) ;; *) target=$ROOT/$target ;; esac
    FRAMELET=$target/release/framelet
fi
framelet_binary
work_dir

# ---- Redis, on a port that is free, and the servers

answers() {
    [ "$(redis-cli -p "$PORT" PING 2>/dev/null)" = PONG ]
}

for _ in 1 2 3 4 5; do
    PORT=$((20000 + RANDOM % 10000))
    start redis redis-server --port "$PORT" --bind 127.0.0.1 --save "" --appendonly yes --dir "$WORK"
    if lib_poll "an answer" "$PID" answers; then break; fi
    PORT=
done
[ -n "$PORT" ] || die "redis-server does not start: $WHY"
redis() {
    redis-cli -p "$PORT" "$@"
}
say "redis listens on 127.0.0.1:$PORT"

to="redis://127.0.0.1:$PORT/0?stream=log"
start_server first --to "$to" || die "the first server does not start"
first=$SERVER_PID first_address=$ADDR
start_server second --to "$to" || die "the second server does not start"
second_address=$ADDR
say "two servers listen on $first_address and $second_address:  framelet serve --to '$to'"

# ---- two consumers, which share the messages and count them

redis XGROUP CREATE log demo 0 MKSTREAM >/dev/null

# Each payload is a line `message N`, unlike any other line of an entry.
consume() {
    while :; do
        redis XREADGROUP GROUP demo "$1" COUNT 1000 BLOCK 500 NOACK STREAMS log '>' >"$WORK/batch-$1"
        if [ -s "$WORK/batch-$1" ] && grep -q '^message ' "$WORK/batch-$1"; then
            grep '^message ' "$WORK/batch-$1"
        elif [ -e "$WORK/sent" ]; then
            return
        fi
    done
}

start one consume one
one=$PID
start two consume two
two=$PID

# ---- the sender, and the end of its server

seq --format 'message %.0f' "$COUNT" >"$WORK/messages"

send() {
    exec "$FRAMELET" send "$1" --ack --sender "$SENDER" "${@:2}" --retry 1s --input lines <"$WORK/messages"
}

# The count, without the checksum that follows it.
committed() {
    redis HGET '{log}:senders' "$SENDER" | cut -d ' ' -f 1
}

has_some() {
    [ "$(committed)" -ge $((COUNT / 10)) ] 2>/dev/null
}

start sender send "$first_address"
sender=$PID
say "a sender starts to send $COUNT messages to the first:  framelet send --ack --sender $SENDER"
lib_poll "some messages" "$sender" has_some || die "$WHY"
stop "$first" KILL || true
say "the first server is killed (kill -9)"
wait_for_exit "$sender" || die "$WHY"
[ "$STATUS" != 0 ] || die "everything was sent before the server was killed: set a larger COUNT"
say "the sender ends with exit code $STATUS; redis has $(committed) of its messages"
say "it starts again, at the second server:  framelet send --ack --sender $SENDER --resume"
start sender send "$second_address" --resume
wait_for_exit "$PID" || die "$WHY"
[ "$STATUS" = 0 ] || die "the sender ended with exit code $STATUS: $(tail -n 1 "$WORK/sender.err")"
say "the sender ends with exit code 0: $(sed -n 's/^framelet: //p' "$WORK/sender.err" | tail -n 1)"
: >"$WORK/sent"

# ---- what the consumers received

for consumer in "$one" "$two"; do
    wait_for_exit "$consumer" || die "$WHY"
    [ "$STATUS" = 0 ] || die "a consumer ended with exit code $STATUS"
done
say
for name in one two; do
    say "consumer $name received $(wc -l <"$WORK/$name.out") messages"
done
sort "$WORK/one.out" "$WORK/two.out" >"$WORK/got"
sort "$WORK/messages" >"$WORK/expected"
lost=$(comm -13 "$WORK/got" "$WORK/expected" | wc -l)
more=$(comm -23 "$WORK/got" "$WORK/expected" | wc -l)
say "together: $(wc -l <"$WORK/got") of $COUNT, $lost lost, $more doubled"
[ $((lost + more)) -eq 0 ] || die "none should be lost or doubled"
[ "$(redis XLEN log)" -eq "$COUNT" ] || die "the stream has $(redis XLEN log) entries"
redis XRANGE log - + | grep '^message ' | cmp -s - "$WORK/messages" || die "the stream is in another order"
say "the stream holds them in the order in which they were sent"
stop_server TERM || die "$WHY"
[ "$STATUS" = 0 ] || die "the second server ended with exit code $STATUS"
finish >/dev/null
