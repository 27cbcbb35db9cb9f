#!/usr/bin/env bash
# Checks what keeps a server standing: the units of deploy/, a socket passed by systemd,
# and the program as the first and only process of an empty container.
#
# Needs bash, systemd (its programs; it need not run), strace, util-linux, libc-bin, and
# root for the container. FRAMELET=… names a program that is already built.

# shellcheck disable=SC2317,SC2329 # some functions are called by their names
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# How exposed the service may be, in tenths: systemd calls up to 2.0 "OK", and 10 the worst.
MOST_EXPOSED=13
# An address that nobody else has: systemd-socket-activate does not tell the port of :0.
ACTIVATED=unix:

framelet_binary
need systemd-analyze systemd
need systemd-socket-activate systemd
need strace strace
need unshare util-linux
need ldd libc-bin
work_dir
ACTIVATED=unix:$WORK/activated.sock

# ---- the units

mkdir "$WORK/units"
for unit in framelet@.service framelet@.socket; do
    sed "s#/usr/bin/framelet#$FRAMELET#" "$ROOT/deploy/$unit" >"$WORK/units/$unit"
done

# Warnings have exit code 0, too.
units_are_valid() {
    local said
    said=$(SYSTEMD_UNIT_PATH="$WORK/units:" systemd-analyze verify --man=no \
        framelet@4747.service framelet@4747.socket 2>&1)
    printf '%s\n' "$said"
    ! grep -q 'framelet@' <<<"$said"
}
check "the units are valid" units_are_valid
check "the service is exposed at most $MOST_EXPOSED of 100" \
    systemd-analyze security --no-pager --offline=true --threshold=$MOST_EXPOSED "$ROOT/deploy/framelet@.service"

# allowed_calls: the system calls that the filter of the service leaves, one a line.
allowed_calls() {
    local line group
    while IFS= read -r line; do
        line=${line#SystemCallFilter=}
        case $line in
        '~'*) for group in ${line#'~'}; do calls_of "$group"; done >>"$WORK/denied" ;;
        *) for group in $line; do calls_of "$group"; done >>"$WORK/allowed" ;;
        esac
    done < <(grep '^SystemCallFilter=' "$ROOT/deploy/framelet@.service")
    # Every filter has these.
    calls_of @default >>"$WORK/allowed"
    grep -vxFf "$WORK/denied" "$WORK/allowed" | sort -u
}

calls_of() {
    local call
    while read -r call; do
        case $call in
        @*) calls_of "$call" ;;
        '#'* | '') ;;
        *) printf '%s\n' "$call" ;;
        esac
    done < <(systemd-analyze syscall-filter --no-pager "$1" | tail -n +2)
}

# Under the filter, what is denied fails with EPERM. These may: SQLite calls fchown as root only.
SPARED='fchown'

filter_allows_what_a_server_calls() {
    local used missing
    used=$(sed -nE 's/^([0-9]+ +)?([a-z0-9_]+)\(.*/\2/p' "$WORK/calls" | sort -u)
    grep -qx accept4 <<<"$used" || { printf 'no calls were recorded\n' && return 1; }
    missing=$(comm -23 <(printf '%s\n' "$used") "$WORK/left" | grep -vxE "$SPARED" || true)
    printf 'not allowed: %s\n' "$missing"
    [ -z "$missing" ]
}

sink=file:$WORK/messages
if "$FRAMELET" --version | grep -q sqlite; then sink=sqlite:$WORK/messages.db; fi
if start_listening traced strace -f -qq -o "$WORK/calls" "$FRAMELET" serve 127.0.0.1:0 --to "$sink"; then
    limited "$FRAMELET" send "$ADDR" --ack --message hello 2>/dev/null || true
    # Not strace, which passes no signal on.
    traced=$(tr -d ' ' <"/proc/$PID/task/$PID/children")
    kill -USR1 "$traced"
    kill -TERM "$traced"
    wait_for_exit "$PID" || true
    allowed_calls >"$WORK/left"
    check "the filter allows what a server calls" filter_allows_what_a_server_calls
fi

# ---- a socket passed by systemd

start activated systemd-socket-activate -l "${ACTIVATED#unix:}" "$FRAMELET" serve systemd --output lines
activated=$PID
is_there() { [ -S "${ACTIVATED#unix:}" ]; }
lib_poll "its socket" "$activated" is_there || case_failed "systemd-socket-activate listens" "$WHY"
check "a server that is started by its first connection serves it" \
    limited "$FRAMELET" send "$ACTIVATED" --message 'the first one'
check "and says that it works" limited "$FRAMELET" ping "$ACTIVATED"
check "and prints what it got" grep -qx 'the first one' "$WORK/activated.out"
stop "$activated" || true
check "and ends with 0" test "$STATUS" = 0
check "and leaves the socket to its owner" is_there

# ---- the only process of an empty container

# container NAME ARGUMENT...: a directory that holds the program, the libraries that it is linked to,
# and nothing else: no shell, no /proc, no /dev. The program is process 1 there.
container() {
    local name=$1 library
    shift
    mkdir "$WORK/$name"
    cp "$FRAMELET" "$WORK/$name/framelet"
    while read -r library; do
        mkdir -p "$WORK/$name$(dirname "$library")"
        cp -L "$library" "$WORK/$name$library"
    done < <(ldd "$FRAMELET" | grep -o '/[^ ]*' || true)
    start_listening "$name" unshare --pid --fork --kill-child --mount \
        chroot "$WORK/$name" /framelet serve 127.0.0.1:0 "$@"
}

# In its own namespace it has number 1, and here another one.
find_process_1() {
    INSIDE=$(tr -d ' ' <"/proc/$1/task/$1/children")
    grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$INSIDE/status"
}

# end_process_1 SIGNAL: sends a signal to process 1, and waits until it has ended; sets STATUS.
end_process_1() {
    kill -"$1" "$INSIDE"
    wait_for_exit "$PID" || true
}

has_ended_in_order() {
    printf 'exit code %s; it said: %s\n' "$STATUS" "$(cat "$WORK/$NAME.err")"
    [ "$STATUS" = 0 ]
}

if [ "$(id -u)" -ne 0 ]; then
    printf 'NOT RUN: the container, because that needs root\n'
elif ! unshare --pid --fork --mount true 2>/dev/null; then
    printf 'NOT RUN: the container, because this system allows no namespaces\n'
else
    NAME=container
    if container $NAME --to file:/messages --threads 1; then
        check "the server is process 1" find_process_1 "$PID"
        find_process_1 "$PID"
        check "it acknowledges messages" limited "$FRAMELET" send "$ADDR" --message inside
        check "and answers a health check" limited "$FRAMELET" ping "$ADDR"
        # Of process 1, the system ignores signals that it does not handle.
        kill -HUP "$INSIDE"
        check "it reopens its file at SIGHUP" wait_for_line "$WORK/$NAME.err" reopened "$PID"
        kill -USR1 "$INSIDE"
        check "it logs its figures at SIGUSR1" wait_for_line "$WORK/$NAME.err" '1 committed' "$PID"
        end_process_1 TERM
        check "SIGTERM ends it in order" has_ended_in_order
        check "and what it received is in its file" grep -qx inside "$WORK/$NAME/messages"
    fi
    NAME=interrupted
    if container $NAME --output none --threads 2; then
        find_process_1 "$PID"
        end_process_1 INT
        check "so does SIGINT, with another number of threads" has_ended_in_order
    fi
fi

finish
