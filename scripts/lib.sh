# shellcheck shell=bash
# What the end-to-end scripts share. Source it after `set -euo pipefail`:
#
#     # shellcheck source-path=SCRIPTDIR source=lib.sh
#     . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#     framelet_binary
#     work_dir
#     start_server plain --output frames
#     check "a message is accepted" limited "$FRAMELET" send "$ADDR" <<<"hello"
#     stop_server
#     check "the server ends with 0" test "$STATUS" -eq 0
#     finish
#
# Set-up
#   framelet_binary            sets FRAMELET: the program named in the environment,
#                              or a debug build of this checkout
#   work_dir                   makes $WORK, a directory that is removed at the end
#   ROOT                       the top of the checkout
#   need PROGRAM PACKAGE       ends the script, in one line, if PROGRAM is missing
#   die WHY                    ends the script, in one line, with exit code 1
#
# Programs: all that these start are ended when the script ends
#   start NAME COMMAND...      runs it in the background, output to $WORK/NAME.out
#                              and $WORK/NAME.err, no input; sets PID
#   start_listening NAME COMMAND...
#                              the same, then waits for its line `listening on ADDR`
#                              in $WORK/NAME.err; sets PID and ADDR
#   start_server NAME ARG...   start_listening of `framelet serve 127.0.0.1:0 ARG...`;
#                              sets SERVER_PID and ADDR
#   LAST_SIGNAL[PID]=SIGNAL    at the end of the script, in place of KILL: for one
#                              that has to end others
#   stop_server [SIGNAL]       sends SIGNAL (TERM) to SERVER_PID, then wait_for_exit
#   stop PID [SIGNAL]          the same for any process that `start` started
#   limited COMMAND...         runs it in the foreground; exit code 124 (137 if it had
#                              to be killed) when it takes longer than $LIMIT seconds
#
# Waiting: each gives up after $LIMIT seconds, then returns 1 and sets WHY
#   wait_for_line FILE TEXT PID     until FILE has a line with TEXT, which it leaves in
#                                   LINE; also gives up when process PID ends
#   wait_for_bytes FILE SIZE PID    the same until FILE has SIZE bytes
#   wait_for_exit PID               until it ends; sets STATUS to its exit code (or to
#                                   `timeout`, after killing it, if it did not end)
#
# Cases: one line each on standard output
#   case_ok DESCRIPTION             ok - DESCRIPTION
#   case_failed DESCRIPTION WHY     FAILED - DESCRIPTION: WHY
#   check DESCRIPTION COMMAND...    runs COMMAND, then one of the two above. Its
#                                   output is shown only if it fails
#   finish                          N passed, N failed; exit code 1 if any failed
#
# start_listening and start_server report a program that does not listen as a
# failed case and return 1; without `|| …` after them that ends the script.
# A program in the background starts with SIGINT ignored, as in every script:
# only one that installs its own handler sees `stop_server INT`.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LIMIT=${LIMIT:-60}
WORK=
WHY=
LINE=
STATUS=
PID=
ADDR=
SERVER_PID=

lib_passed=0
lib_failed=0
lib_ended=
declare -A lib_running=()
declare -A LAST_SIGNAL=()

# ---- set-up

die() {
    lib_ended=yes
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null || die "$1 is needed and was not found (on Debian: apt-get install $2)"
}

framelet_binary() {
    if [ -z "${FRAMELET:-}" ]; then
        need cargo cargo
        (cd "$ROOT" && cargo build --quiet --locked) || die "cargo build failed"
        local target=${CARGO_TARGET_DIR:-target}
        case $target in /*) ;; *) target=$ROOT/$target ;; esac
        FRAMELET=$target/debug/framelet
    fi
    local given=$FRAMELET
    FRAMELET=$(command -v "$given") || die "FRAMELET=$given is not a program"
    case $FRAMELET in /*) ;; *) FRAMELET=$PWD/$FRAMELET ;; esac
}

work_dir() {
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/framelet.XXXXXX") || die "cannot make a temporary directory"
}

lib_cleanup() {
    local status=$? pid
    trap - EXIT
    trap '' INT TERM HUP
    for pid in "${!lib_running[@]}"; do
        lib_signal "$pid" "${LAST_SIGNAL[$pid]:-KILL}"
        wait "$pid" 2>/dev/null || true
    done
    if [ -n "$WORK" ]; then rm -rf -- "$WORK"; fi
    if [ -z "$lib_ended" ]; then
        printf '%s: ended early, with exit code %d\n' "${0##*/}" "$status" >&2
        if [ "$status" -eq 0 ]; then status=1; fi
    fi
    exit "$status"
}
trap lib_cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- programs

start() {
    local name=$1
    shift
    "$@" </dev/null >"$WORK/$name.out" 2>"$WORK/$name.err" &
    PID=$!
    lib_running[$PID]=$name
}

start_listening() {
    local name=$1
    ADDR=
    start "$@"
    if ! wait_for_line "$WORK/$name.err" 'listening on ' "$PID"; then
        case_failed "$name listens" "$WHY"
        if [ -n "${lib_running[$PID]:-}" ]; then stop "$PID" KILL || true; fi
        return 1
    fi
    # shellcheck disable=SC2034 # for the scripts
    ADDR=$(sed -n 's/.*listening on \([^ ]*\).*/\1/p' <<<"$LINE")
}

start_server() {
    local name=$1 result=0
    shift
    start_listening "$name" "$FRAMELET" serve 127.0.0.1:0 "$@" || result=1
    SERVER_PID=$PID
    return "$result"
}

stop_server() {
    stop "$SERVER_PID" "${1:-TERM}"
}

stop() {
    lib_signal "$1" "${2:-TERM}"
    wait_for_exit "$1"
}

# Asks the shell, not the system: the id of a process that has ended may already
# belong to another one.
lib_runs() {
    case $'\n'$(jobs -pr)$'\n' in *$'\n'"$1"$'\n'*) ;; *) return 1 ;; esac
}

# A process that has already ended is not an error here: its exit code tells.
lib_signal() {
    if lib_runs "$1"; then kill -"$2" "$1" 2>/dev/null || true; fi
}

limited() {
    timeout --foreground --kill-after=5 "$LIMIT" "$@"
}

# ---- waiting

# lib_poll WHAT PID TEST...: waits until TEST succeeds, and tries every 20 ms.
lib_poll() {
    local what=$1 pid=$2 deadline=$((SECONDS + LIMIT)) name
    shift 2
    name=${lib_running[$pid]:-$pid}
    until "$@"; do
        if ! lib_runs "$pid"; then
            # TEST may have become true just before the end.
            if "$@"; then return 0; fi
            wait_for_exit "$pid" || true
            WHY="$name ended with exit code $STATUS before $what$(lib_last_words "$name")"
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            WHY="$name did not reach $what within $LIMIT s$(lib_last_words "$name")"
            return 1
        fi
        sleep 0.02
    done
}

lib_last_words() {
    if [ -s "$WORK/$1.err" ]; then printf '; it said: %s' "$(tail -n 1 "$WORK/$1.err")"; fi
}

# Only whole lines: a line without a line feed is still being written.
lib_has_line() {
    LINE=
    local line
    while IFS= read -r line; do
        case $line in *"$2"*) LINE=$line && return 0 ;; esac
    done 2>/dev/null <"$1"
    return 1
}

lib_has_bytes() {
    [ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -ge "$2" ]
}

wait_for_line() {
    lib_poll "the line \"$2\"" "$3" lib_has_line "$1" "$2"
}

wait_for_bytes() {
    lib_poll "$2 bytes of output" "$3" lib_has_bytes "$1" "$2"
}

wait_for_exit() {
    local pid=$1 deadline=$((SECONDS + LIMIT)) name=${lib_running[$1]:-$1}
    while lib_runs "$pid"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            lib_signal "$pid" KILL
            wait "$pid" 2>/dev/null || true
            unset "lib_running[$pid]"
            STATUS=timeout
            WHY="$name did not end within $LIMIT s$(lib_last_words "$name")"
            return 1
        fi
        sleep 0.02
    done 2>/dev/null # the shell's own message that it was killed
    STATUS=0
    wait "$pid" 2>/dev/null || STATUS=$?
    unset "lib_running[$pid]"
}

# ---- cases

case_ok() {
    lib_passed=$((lib_passed + 1))
    printf 'ok - %s\n' "$1"
}

case_failed() {
    lib_failed=$((lib_failed + 1))
    printf 'FAILED - %s: %s\n' "$1" "${2//$'\n'/ | }"
}

check() {
    local description=$1 output status=0
    shift
    output=$("$@" 2>&1) || status=$?
    if [ "$status" -eq 0 ]; then
        case_ok "$description"
    else
        case_failed "$description" "${output:+$output | }exit code $status from: $*"
    fi
}

finish() {
    lib_ended=yes
    printf '%d passed, %d failed\n' "$lib_passed" "$lib_failed"
    if [ "$lib_failed" -gt 0 ]; then exit 1; fi
    exit 0
}
