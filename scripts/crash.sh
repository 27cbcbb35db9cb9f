#!/usr/bin/env bash
# Does a killed server lose acknowledged messages? Sends 10,000 messages with
# `send --ack`, kills the server with SIGKILL at a random point, restarts it at the same
# address, and lets the client resume on its own. Then it checks what was stored:
#
#     scripts/crash.sh [ROUNDS]
#
# ROUNDS (100) for each of two sinks. A database must hold each message once, a file each
# at least once; the script reports how many are doubled.
#
# Needs bash, the coreutils and sqlite3. FRAMELET=… names the program to test, SEED=…
# repeats the random points (as closely as timing allows).

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROUNDS=${1:-100}
case $ROUNDS in '' | *[!0-9]*) die "usage: crash.sh [ROUNDS]" ;; esac
need sqlite3 sqlite3
framelet_binary
work_dir
RANDOM=${SEED:=$RANDOM}

MESSAGES=10000
CLIENT_PID=
seq "$MESSAGES" >"$WORK/input"

# serve ADDR SINK: sets SERVER_PID and ADDR.
serve() {
    local output=()
    case $2 in file:*) output=(--output lines) ;; esac
    # Otherwise the line of the previous server could be taken for its own.
    rm -f "$WORK/server.err"
    start_listening server "$FRAMELET" serve "$1" --to "$2" "${output[@]}"
    SERVER_PID=$PID
}

# sending ARG...: runs `framelet send` with the file of messages as input.
sending() {
    # shellcheck disable=SC2317,SC2329 # called by its name, through `start`
    exec "$FRAMELET" send "$@" <"$WORK/input"
}

# contents SINK: prints the stored messages, one on each line.
contents() {
    case $1 in
        sqlite:*) sqlite3 -readonly -cmd '.timeout 5000' "${1#*:}" 'SELECT payload FROM messages ORDER BY id' ;;
        file:*) cat "${1#*:}" ;;
    esac
}

# has SINK COUNT: succeeds if at least COUNT messages are stored.
has() {
    [ "$(contents "$1" | wc -l)" -ge "$2" ]
}

# round SINK: prints what is wrong; sets AGAIN to the number of doubled messages, and DURING to 1 if the
# server was killed before all messages were stored.
round() {
    local sink=$1 point=$((RANDOM % (MESSAGES * 8 / 10) + 1)) status sent
    AGAIN=0 DURING=0
    serve 127.0.0.1:0 "$sink" || return 1
    start client sending "$ADDR" --ack --input lines --window 100 --retry 60s
    CLIENT_PID=$PID
    lib_poll "$point messages" "$SERVER_PID" has "$sink" "$point" || { echo "$WHY; the client: $(cat "$WORK/client.err")" && return 1; }
    stop_server KILL || true
    if ! has "$sink" "$MESSAGES"; then DURING=1; fi
    serve "$ADDR" "$sink" || return 1
    wait_for_exit "$CLIENT_PID" || { echo "$WHY" && return 1; }
    # shellcheck disable=SC2153 # wait_for_exit sets it
    status=$STATUS sent=$(<"$WORK/client.err")
    stop_server TERM
    contents "$sink" >"$WORK/there"
    sort -n "$WORK/there" | uniq >"$WORK/each"
    AGAIN=$(($(wc -l <"$WORK/there") - $(wc -l <"$WORK/each")))
    if ! cmp -s "$WORK/input" "$WORK/each"; then
        # If the client ends with 0, all were acknowledged; otherwise as many as it says.
        echo "client: exit code $status, \"$sent\"; missing: $(comm -23 <(sort "$WORK/input") <(sort "$WORK/each") | wc -l)"
        return 1
    fi
    if [ "$status" -ne 0 ]; then echo "client: exit code $status, \"$sent\"" && return 1; fi
    if [ "$STATUS" -ne 0 ]; then echo "server: exit code $STATUS" && return 1; fi
    case $sink in
        sqlite:*) cmp "$WORK/input" "$WORK/there" || return 1 ;;
    esac
}

for kind in sqlite file; do
    failed=0 during=0 again=0 most=0 why=
    for ((number = 1; number <= ROUNDS; number++)); do
        sink=$kind:$WORK/$kind-$number
        if round "$sink" >"$WORK/why" 2>&1; then
            again=$((again + AGAIN)) during=$((during + DURING))
            if [ "$AGAIN" -gt "$most" ]; then most=$AGAIN; fi
        else
            failed=$((failed + 1))
            why="round $number: $(<"$WORK/why")"
            for pid in "$SERVER_PID" "$CLIENT_PID"; do stop "$pid" KILL || true; done
        fi
        rm -f "${sink#*:}"*
    done
    result="$ROUNDS rounds, $during of them killed while sending, $again messages doubled, at most $most in one round (SEED=$SEED)"
    if [ "$failed" -eq 0 ]; then
        case_ok "$kind: nothing acknowledged is missing; $result"
    else
        case_failed "$kind: $failed of $result" "$why"
    fi
done
finish
