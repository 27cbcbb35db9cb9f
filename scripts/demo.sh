#!/usr/bin/env bash
# A demonstration: a server, four clients that send to it at once, and a check that
# every byte of every message arrived.
#
# Needs bash, the coreutils, sed and grep, and cargo to build framelet (FRAMELET=…
# names a program that is already built). Leaves only the build.

# shellcheck disable=SC2317,SC2329 # some functions are called by their names in variables
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

LINES_SENT=10000
LARGE=$((5 * 1024 * 1024))

say() {
    printf '%s\n' "$*"
}

# The same build as an installation.
if [ -z "${FRAMELET:-}" ]; then
    command -v cargo >/dev/null || die "cargo was not found; https://rustup.rs installs it"
    say "building framelet (the first time, this may take a minute)"
    (cd "$ROOT" && cargo build --release --locked --quiet) || die "cargo build failed"
    target=${CARGO_TARGET_DIR:-target}
    case $target in /*) ;; *) target=$ROOT/$target ;; esac
    FRAMELET=$target/release/framelet
fi
framelet_binary
work_dir

# ---- what is sent: for each client, a file

printf 'Grüße aus Köln,\n\n  こんにちは 👋\nbis bald!' >"$WORK/sent-1"
: >"$WORK/sent-2"
seq --format "message %.0f of $LINES_SENT" "$LINES_SENT" >"$WORK/sent-3"
head -c "$LARGE" /dev/urandom >"$WORK/sent-4"

# ---- the server, and the clients

start_server server --output json --verbose || die "the server does not start"
received=$WORK/server.out
log=$WORK/server.err
say "the server listens on $ADDR:  framelet serve 127.0.0.1:0 --output json --verbose"

# Gives a client its input once all clients are connected.
feed() {
    exec >"$WORK/input-$1"
    until [ -e "$WORK/all-connected" ]; do sleep 0.02; done
    exec cat "$WORK/sent-$1"
}

send() {
    exec "$FRAMELET" send "$ADDR" --input "$2" <"$WORK/input-$1"
}

clients=()

# client NUMBER FORMAT WHAT: starts a client. The server gives its connection the same
# NUMBER, because the next client starts only when this one is connected.
client() {
    mkfifo "$WORK/input-$1"
    start "feed-$1" feed "$1"
    start "client-$1" send "$1" "$2"
    clients+=("$PID")
    wait_for_line "$log" "connection $1 from" "$SERVER_PID" || die "client $1 does not connect: $WHY"
    printf '  client %s:  framelet send --input %-6s %s\n' "$1" "$2" "$3"
}

client 1 whole "one message of four lines"
client 2 whole "one empty message"
client 3 lines "$LINES_SENT messages, a line each"
client 4 whole "one message of $LARGE random bytes"
: >"$WORK/all-connected"
for number in 1 2 3 4; do
    wait_for_exit "${clients[number - 1]}" || die "$WHY"
    [ "$STATUS" = 0 ] || die "client $number ended with exit code $STATUS: $(<"$WORK/client-$number.err")"
done
say "all four were connected, sent at once, and ended with exit code 0"

# ---- what arrived

# messages_of CLIENT: the server's lines for it, in the order they were written.
messages_of() {
    grep "\"connection\":$1," "$received" || true
}

# Extract the payloads from these lines without using framelet.
text() {
    sed 's/.*"payload":"\(.*\)"}$/\1/'
}
unescaped_text() {
    printf '%b' "$(text)"
}
binary() {
    sed 's/.*"payload_base64":"\(.*\)"}$/\1/' | base64 -d
}

say
say "what arrived, as the server wrote it (time and peer left out, long lines cut):"
for number in 1 2 3 4; do
    messages_of "$number" | head -n 2 | cut -c 1-2000 | while IFS= read -r line; do
        line="  {…,${line#*\",*\",}"
        if [ "${#line}" -gt 130 ]; then line="${line:0:100}…"; fi
        say "$line"
    done
done
say

# verify CLIENT MESSAGES PAYLOADS: checks that what arrived is what the client sent.
verify() {
    local count difference
    count=$(messages_of "$1" | wc -l)
    [ "$count" -eq "$2" ] || die "client $1 sent $2 messages, and $count arrived"
    difference=$(messages_of "$1" | "$3" 2>&1 | cmp - "$WORK/sent-$1" 2>&1) ||
        die "what arrived from client $1 is not what it sent: $difference"
    printf '  client %s: %5d sent, %5d arrived, %7d bytes, all equal\n' "$1" "$2" "$count" "$(stat -c %s "$WORK/sent-$1")"
}

say "compared with what was sent:"
verify 1 1 unescaped_text
verify 2 1 unescaped_text
verify 3 "$LINES_SENT" text
verify 4 1 binary
total=$(wc -l <"$received")
[ "$total" -eq $((LINES_SENT + 3)) ] || die "$((LINES_SENT + 3)) messages were sent, and $total arrived"

# ---- something that is not a message

say
say "a web client connects to the wrong port:  GET / HTTP/1.1"
printf 'GET / HTTP/1.1\r\n\r\n' >"$WORK/request"
cat "$WORK/request" >"/dev/tcp/${ADDR/://}" # in one write: the server closes after the first
wait_for_line "$log" 'looks like an HTTP request' "$SERVER_PID" || die "the server does not say so: $WHY"
say "the server's log:"
fold -s -w 96 <<<"$LINE" | sed 's/^/  /'

# ---- the end

say
stop_server TERM || die "$WHY"
[ "$STATUS" = 0 ] || die "the server ended with exit code $STATUS: $(tail -n 1 "$log")"
[ "$(wc -l <"$received")" -eq "$total" ] || die "the server wrote more while it shut down"
say "SIGTERM shut the server down: exit code 0"
say "everything arrived, byte for byte"
finish >/dev/null
