#!/usr/bin/env bash
# What does framelet do when what it stands on fails while it works? Each case loads a
# server through a fault, and then checks that acknowledged messages are there, each once:
#
#     scripts/faults.sh [CASE]...
#
# (tests/faults.rs has more of them, in which a server waits for room on its disk.)
#
# CASE (all): descriptors (P8), disk (P27), slow-disk, slow-reader (P3), resets (P16),
# signals (P12), clock (P29), network, balancer. What this machine does not allow is reported
# as NOT RUN.
#
# Needs bash, the coreutils, python3, openssl and sqlite3; for some cases also root,
# strace, prlimit and nsenter (util-linux), faketime, iproute2 and /dev/net/tun, or haproxy,
# redis-server and a build with the feature redis. FRAMELET=… names the program to test,
# SEED=… repeats the random signals.

# shellcheck disable=SC2317,SC2329 # many functions are called by their names
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=faults/distance.sh
. "$(dirname "${BASH_SOURCE[0]}")/faults/distance.sh"

CASES=(descriptors disk slow-disk slow-reader resets signals clock network balancer)
for case in "$@"; do
    case " ${CASES[*]} " in *" $case "*) ;; *) die "there is no case $case, only ${CASES[*]}" ;; esac
done
if [ $# -gt 0 ]; then CASES=("$@"); fi
need python3 python3
need openssl openssl
need sqlite3 sqlite3
framelet_binary
work_dir
RANDOM=${SEED:=$RANDOM}
FAKETIME_LIBRARY=$(find /usr/lib /usr/local/lib -name libfaketime.so.1 2>/dev/null | head -n 1)

not_run() {
    printf 'NOT RUN: %s\n' "$*"
}

has() {
    command -v "$1" >/dev/null
}

# tries DESCRIPTION COMMAND...: a case. Unlike `check` it runs COMMAND in this shell, so that all that it
# starts is ended with the script.
tries() {
    if "${@:2}" >"$WORK/said" 2>&1; then case_ok "$1"; else case_failed "$1" "$(tail -n 5 "$WORK/said")"; fi
}

# The sender of all messages of a case that has only one.
SENDER=00112233445566778899aabbccddeeff

# sending COUNT ARG...: becomes `framelet send` of the numbers up to COUNT. Two fields, so that
# each message of several senders is its own.
sending() {
    exec "$FRAMELET" send "${@:2}" --ack --input lines < <(seq "$1")
}

# starts_sending NAME COUNT ARG...: the same in the background; sets PID.
starts_sending() {
    start "$1" sending "${@:2}"
}

# is_sent PID NAME: waits until a client ends, with exit code 0.
is_sent() {
    wait_for_exit "$1" || { printf '%s\n' "$WHY" && return 1; }
    [ "$STATUS" = 0 ] || { printf '%s ended with exit code %s: %s\n' "$2" "$STATUS" "$(<"$WORK/$2.err")" && return 1; }
}

# has_each_once SINK COUNT: the sink has the numbers up to COUNT, each once and in order.
has_each_once() {
    case $1 in
        sqlite:*) sqlite3 -readonly "${1#*:}" 'SELECT payload FROM messages ORDER BY id' ;;
        file:*) cat "${1#*:}" ;;
    esac >"$WORK/there"
    seq "$2" | cmp - "$WORK/there" || { printf '%s of %s messages\n' "$(wc -l <"$WORK/there")" "$2" && return 1; }
}

# stops: ends the server, in order.
stops() {
    stop_server TERM || { printf '%s\n' "$WHY" && return 1; }
    [ "$STATUS" = 0 ] || { printf 'the server ended with exit code %s\n' "$STATUS" && return 1; }
}

# has_rows DATABASE COUNT: it has as many or more.
has_rows() {
    [ "$(sqlite3 -readonly -cmd '.timeout 20000' "$1" 'SELECT count(*) FROM messages')" -ge "$2" ]
}

# server_logs NAME TEXT: waits until the server has said so.
server_logs() {
    wait_for_line "$WORK/$1.err" "$2" "$SERVER_PID" || { printf '%s\n' "$WHY" && return 1; }
}

# ---- no file descriptors are left, while connections and a database are open

descriptors() {
    has prlimit || { not_run "a server without file descriptors, because there is no prlimit" && return; }
    tries "a server that has no file descriptor left waits for one, and serves all" without_descriptors
}

without_descriptors() {
    local limit clients=() name counts
    start_server descriptors --to "sqlite:$WORK/descriptors.db" || return 1
    limit=$(prlimit --pid "$SERVER_PID" --nofile --output HARD --noheadings | tr -d ' ')
    # The numbers of descriptors begin with 0, and none below the limit is free.
    prlimit --pid "$SERVER_PID" --nofile="$(find "/proc/$SERVER_PID/fd" -mindepth 1 | wc -l):$limit"
    for name in d1 d2 d3; do
        starts_sending "$name" 5000 "$ADDR"
        clients+=("$PID $name")
    done
    server_logs descriptors "cannot accept connections" || return 1
    prlimit --pid "$SERVER_PID" --nofile="$limit:$limit"
    for name in "${clients[@]}"; do
        # shellcheck disable=SC2086 # two words
        is_sent $name || return 1
    done
    stops || return 1
    counts=$(sqlite3 -readonly "$WORK/descriptors.db" 'SELECT count(*), count(DISTINCT sender || number) FROM messages')
    [ "$counts" = '15000|15000' ] || { printf '%s instead of 15000 messages\n' "$counts" && return 1; }
}

# ---- disks that fail again and again, and slow ones

# traced NAME INJECTION SINK ARG...: starts a server in which strace injects faults.
traced() {
    start_listening "$1" strace -D -f -qq -o /dev/null -e "trace=${2%%:*}" -e "inject=$2" \
        "$FRAMELET" serve 127.0.0.1:0 --to "$3" "${@:4}" || return 1
    SERVER_PID=$PID
}

disk() {
    has strace || { not_run "failing disks, because there is no strace" && return; }
    # The first calls are those at the start, which would end it.
    tries "a database on a disk that fails at every 9th sync has each message once" \
        through_trouble eio fsync,fdatasync:error=EIO:when=20+9 "sqlite:$WORK/eio.db"
    tries "a database on a disk that is full at every 40th write has each message once" \
        through_trouble enospc pwrite64:error=ENOSPC:when=100+40 "sqlite:$WORK/enospc.db"
    tries "a file on a disk that fails at every 5th sync has each message once" \
        through_trouble file fsync,fdatasync:error=EIO:when=10+5 "file:$WORK/file" --output lines
}

through_trouble() {
    traced "$@" || return 1
    # A small window makes many commits.
    starts_sending "$1-client" 20000 "$ADDR" --window 100 --retry 0s
    is_sent "$PID" "$1-client" || return 1
    grep -q 'waiting until' "$WORK/$1.err" || { printf 'there was no trouble: %s\n' "$(<"$WORK/$1.err")" && return 1; }
    stops && has_each_once "$3" 20000
}

slow-disk() {
    has strace || { not_run "slow disks, because there is no strace" && return; }
    tries "a disk that takes 50 ms for a sync slows a sender down, and no more" \
        through_slowness slow delay_exit=50000 "sqlite:$WORK/slow.db"
    # Twice the --timeout of the client: it keeps waiting, as the server sends heartbeats.
    tries "a disk that hangs for 8 s does not end a connection" \
        through_slowness hanging delay_exit=8000000:when=20 "sqlite:$WORK/hanging.db"
}

through_slowness() {
    traced "$1" "fsync,fdatasync:$2" "$3" --verbose || return 1
    # It would not connect again.
    starts_sending "$1-client" 20000 "$ADDR" --window 1000 --retry 0s --timeout 4s
    is_sent "$PID" "$1-client" || return 1
    [ "$(grep -c ': open' "$WORK/$1.err")" = 1 ] || { printf 'there were several connections\n' && return 1; }
    stops && has_each_once "$3" 20000
}

# ---- the reader of standard output stops

slow-reader() {
    tries "while the reader of its output stops, senders wait, and nothing is lost or doubled" with_stopped_reader
}

into_pipe() {
    exec "$FRAMELET" serve 127.0.0.1:0 --output lines "$@" >"$WORK/pipe"
}

with_stopped_reader() {
    local client reader
    mkfifo "$WORK/pipe"
    start reader cat "$WORK/pipe"
    reader=$PID
    start_listening slow-reader into_pipe || return 1
    SERVER_PID=$PID
    kill -STOP "$reader"
    starts_sending slow-reader-client 300000 "$ADDR" --retry 0s --timeout 4s
    client=$PID
    # Longer than the client's --timeout.
    sleep 6
    lib_runs "$client" || { printf 'the client ended: %s\n' "$(<"$WORK/slow-reader-client.err")" && return 1; }
    kill -CONT "$reader"
    is_sent "$client" slow-reader-client && stops || return 1
    wait_for_exit "$reader" || return 1
    has_each_once "file:$WORK/reader.out" 300000
}

# ---- a connection is reset at every point

# The certificates of docs/tls.md.
certificates() {
    cd "$WORK"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj '/CN=faults CA' -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj '/CN=faults' \
        -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout server.key -out server.csr
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out server.pem
}
said=$( (certificates) 2>&1) || die "openssl cannot make certificates: $said"
SERVE_TLS=(--tls-cert "$WORK/server.pem" --tls-key "$WORK/server.key")
SEND_TLS=(--tls --tls-ca "$WORK/ca.pem")

resets() {
    start_server resets --to "sqlite:$WORK/resets.db"
    # 33 bytes of the hello and 15 of the messages; acknowledgements of 12 bytes.
    tries "a connection that is reset after each of the client's bytes" with_resets resets 0 50 1 client
    tries "a connection that is reset after each of the server's bytes" with_resets resets 0 30 1 server
    stop_server || true
    start_server resets-tls --to "sqlite:$WORK/resets-tls.db" "${SERVE_TLS[@]}"
    tries "the same over TLS, handshake included, of the client" with_resets resets-tls 0 700 29 client "${SEND_TLS[@]}"
    tries "and of the server" with_resets resets-tls 0 1600 53 server "${SEND_TLS[@]}"
    stop_server || true
}

with_resets() {
    local proxy proxy_address runs=0 before counts
    before=$(sqlite3 -readonly -cmd '.timeout 5000' "$WORK/$1.db" 'SELECT count(*) FROM messages')
    rm -f "$WORK/proxy.out"
    start proxy python3 "$ROOT/scripts/soak/proxy.py" "$ADDR" points "${@:2:4}"
    proxy=$PID
    wait_for_line "$WORK/proxy.out" : "$proxy" || { printf '%s\n' "$WHY" && return 1; }
    proxy_address=$LINE
    while [ "$runs" -lt 200 ] && ! grep -q '^done' "$WORK/proxy.out"; do
        runs=$((runs + 1))
        limited "$FRAMELET" send "$proxy_address" --ack --message a --message b --message c "${@:6}" || return 1
    done
    stop "$proxy" KILL || true
    grep -q '^done' "$WORK/proxy.out" || { printf '%s runs did not reach the last point\n' "$runs" && return 1; }
    counts=$(sqlite3 -readonly -cmd '.timeout 5000' "$WORK/$1.db" 'SELECT count(*), count(DISTINCT sender || number) FROM messages')
    [ "$counts" = "$((before + 3 * runs))|$((before + 3 * runs))" ] || { printf '%s after %s runs\n' "$counts" "$runs" && return 1; }
}

# ---- signals at random

signals() {
    tries "a server and a client that get random signals (SEED=$SEED) lose and double nothing" with_signals
}

with_signals() {
    local sink=sqlite:$WORK/signals.db client signal number address
    start_server signals --to "$sink" || return 1
    address=$ADDR
    starts_sending signals-client 400000 "$ADDR" --window 200 --retry 60s --sender "$SENDER"
    client=$PID
    for ((number = 0; number < 150; number++)); do
        lib_runs "$client" || break
        case $((RANDOM % 9)) in
            0 | 1) signal=STOP ;;
            2) signal=USR1 ;;
            3) signal=WINCH ;;
            4) signal=TSTP ;;
            5) signal=PIPE ;;
            6) signal=TERM ;;
            7) signal=INT ;;
            8) signal=KILL ;;
        esac
        case $signal in
            # These end a client, which is not what is tried here.
            USR1 | TERM | INT | KILL) kill -"$signal" "$SERVER_PID" ;;
            *) kill -"$signal" "$([ $((RANDOM % 2)) = 0 ] && echo "$client" || echo "$SERVER_PID")" ;;
        esac
        sleep "0.$((RANDOM % 20 + 10))"
        kill -CONT "$client" 2>/dev/null || true
        case $signal in
            TERM | INT | KILL)
                wait_for_exit "$SERVER_PID" || { printf 'after %s: %s\n' "$signal" "$WHY" && return 1; }
                if [ "$signal" != KILL ] && [ "$STATUS" != 0 ]; then
                    printf 'after %s the server ended with exit code %s\n' "$signal" "$STATUS" && return 1
                fi
                rm -f "$WORK/signals.err"
                start_listening signals "$FRAMELET" serve "$address" --to "$sink" || return 1
                SERVER_PID=$PID
                ;;
            *) kill -CONT "$SERVER_PID" ;;
        esac
    done
    is_sent "$client" signals-client || return 1
    [ "$number" -ge 20 ] || { printf 'there was only time for %s signals\n' "$number" && return 1; }
    stops && has_each_once "$sink" 400000
}

# ---- the clock is set, again and again

clock() {
    [ -n "$FAKETIME_LIBRARY" ] || { not_run "steps of the clock, because there is no libfaketime (Debian: faketime)" && return; }
    set_clock +0d
    tries "a clock that is set by months while messages arrive forgets nobody, and prunes nothing" with_clock
}

set_clock() {
    printf '%s\n' "$1" >"$WORK/clock.new"
    mv "$WORK/clock.new" "$WORK/clock"
}

at_false_times() {
    export LD_PRELOAD=$FAKETIME_LIBRARY FAKETIME_TIMESTAMP_FILE=$WORK/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
    exec "$FRAMELET" "$@"
}

with_clock() {
    local db=$WORK/clock.db client step rows=0
    start_listening clock at_false_times serve 127.0.0.1:0 --to "sqlite:$db" --keep 10d || return 1
    SERVER_PID=$PID
    starts_sending clock-client 40000 "$ADDR" --window 20 --sender "$SENDER" --retry 0s
    client=$PID
    for step in +60d -60d +3650d '@1970-01-01 00:00:10' +1d; do
        rows=$((rows + 5000))
        lib_poll "$rows rows" "$client" has_rows "$db" "$rows" || { printf '%s\n' "$WHY" && return 1; }
        set_clock "$step"
    done
    is_sent "$client" clock-client && stops && has_each_once "sqlite:$db" 40000 || return 1
    step=$(sqlite3 -readonly "$db" "SELECT count(DISTINCT substr(received, 1, 7)) FROM messages")
    [ "$step" -ge 4 ] || { printf 'the clock was not set: messages of %s months\n' "$step" && return 1; }
    # A new server, years earlier, knows the sender.
    set_clock -2000d
    start_listening clock-again at_false_times serve 127.0.0.1:0 --to "sqlite:$db" --keep 10d || return 1
    SERVER_PID=$PID
    starts_sending clock-again-client 40001 "$ADDR" --sender "$SENDER" --resume
    is_sent "$PID" clock-again-client && stops && has_each_once "sqlite:$db" 40001
}

for case in "${CASES[@]}"; do
    "$case"
done
finish
