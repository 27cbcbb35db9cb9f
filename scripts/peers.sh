#!/usr/bin/env bash
# Do framelet and other programs understand each other?
#
#     scripts/peers.sh [--only-present] [NAME...]
#
# Real peers send to `framelet serve`, and `framelet send` sends to real peers that
# send everything back: Twisted, asyncio, Erlang, and a peer that writes as .NET's
# BitConverter does. peers/contents.py defines what they exchange, and compares all
# of it byte for byte.
#
# Then the examples of docs/protocols.md run as they stand there, each in an empty
# directory, on free ports, against the servers that they start: each must print
# what the page shows. NAME... runs only these peers.
#
# Needs python3 with venv, a package index for pip (what is written in Python is
# installed into a temporary directory), erlang-base, and the servers in `programs`
# below. A peer that is missing is a failure; --only-present skips it. FRAMELET=…
# names the program to test.

# shellcheck disable=SC2317,SC2329 # some functions are called by their names
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PEERS=$ROOT/scripts/peers
PAGE=$ROOT/docs/protocols.md
export PYTHONDONTWRITEBYTECODE=1
PATH=$PATH:/usr/sbin
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done

# What each example starts, as program:package of Debian.
declare -A programs=(
    [capture]="tshark:tshark text2pcap:wireshark-common"
    [dns]="dnsmasq:dnsmasq-base"
    [mqtt]="mosquitto:mosquitto"
    [postgres]="initdb:postgresql pg_isready:postgresql-client"
    [git]="git:git"
    [syslog]="rsyslogd:rsyslog logger:bsdutils"
    [lsp]=""
    [protobuf]=""
    [redis]="redis-server:redis-server"
    [docker]=""
    [grpc]=""
)
# What each peer needs of pip.
declare -A modules=(
    [twisted]='twisted>=22.10'
    [lsp]=python-lsp-server
    [protobuf]=protobuf
)
exchanges=(twisted asyncio erlang bitconverter)
# In the order of the page.
mapfile -t examples < <(sed -n 's/^```sh peers //p' "$PAGE")

for name in "${!programs[@]}"; do
    case " ${examples[*]} " in *" $name "*) ;; *) die "$PAGE has no example $name" ;; esac
done

only_present=
chosen=()
for argument in "$@"; do
    case " ${exchanges[*]} ${examples[*]} --only-present " in
    *" $argument "*) ;;
    *) die "there is no $argument; the peers are ${exchanges[*]} ${examples[*]}" ;;
    esac
    if [ "$argument" = --only-present ]; then only_present=yes; else chosen+=("$argument"); fi
done
if [ ${#chosen[@]} -eq 0 ]; then chosen=("${exchanges[@]}" "${examples[@]}"); fi

declare -A missing=()
is_missing() {
    missing[$1]=yes
    if [ -n "$only_present" ]; then
        printf 'skipped - %s: %s\n' "$1" "$2"
    else
        case_failed "$1 is there" "$2"
    fi
}

# needs NAME PROGRAM:PACKAGE...: whether NAME is chosen, and all of these are there.
needs() {
    local name=$1 program
    shift
    case " ${chosen[*]} " in *" $name "*) ;; *) return 1 ;; esac
    if [ -n "${missing[$name]:-}" ]; then return 1; fi
    for program in "$@"; do
        if command -v "${program%:*}" >/dev/null; then continue; fi
        is_missing "$name" "${program%:*} was not found (on Debian: apt-get install ${program#*:})"
        return 1
    done
}

need python3 python3
framelet_binary
work_dir

# The last line of pip's output is the reason; all of it would be pages.
set_up() {
    local what=$1 status=0 said
    shift
    limited "$@" >"$WORK/set-up.log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        said=$(grep . "$WORK/set-up.log" | tail -n 1 || true)
        die "$what: exit code $status${said:+, $said}"
    fi
}
LIMIT=180 set_up "cannot make a Python environment (on Debian: apt-get install python3-venv)" \
    python3 -m venv "$WORK/venv"
PYTHON=$WORK/venv/bin/python
for name in "${chosen[@]}"; do
    module=${modules[$name]:-}
    if [ -z "$module" ]; then continue; fi
    if ! LIMIT=180 limited "$PYTHON" -m pip install --quiet --no-cache-dir --disable-pip-version-check \
        "$module" >"$WORK/pip.log" 2>&1; then
        is_missing "$name" "pip cannot install $module: $(grep . "$WORK/pip.log" | tail -n 1)"
    fi
done
PATH=$WORK/venv/bin:$PATH
export MESSAGES=$WORK/messages
set_up "cannot write the messages" "$PYTHON" "$PEERS/contents.py" write "$MESSAGES"

compare() {
    check "$1" "$PYTHON" "$PEERS/contents.py" compare "$2"
}

# to_serve PEER LAYOUT MANNER COMMAND...: the peer is the client.
exchange=0
to_serve() {
    local case="$1 to serve, $3" layout=$2 manner=$3
    shift 3
    exchange=$((exchange + 1))
    local name="serve-$exchange"
    start_server "$name" --layout "$layout" --output frames || return 0
    check "$case: the peer succeeds" limited "$@" client "$ADDR" "$manner"
    # A peer that does not wait for the server ends before everything is read.
    if [ "$manner" = close ]; then
        wait_for_bytes "$WORK/$name.out" "$(stat -c %s "$MESSAGES")" "$SERVER_PID" || true
    fi
    stop_server TERM || true
    if [ "$STATUS" = 0 ]; then
        case_ok "$case: the server ends with exit code 0"
    else
        case_failed "$case: the server ends with exit code 0" \
            "it was $STATUS; it said: $(tail -n 3 "$WORK/$name.err")"
    fi
    compare "$case: every message arrives as it was sent" "$WORK/$name.out"
}

# from_send PEER LAYOUT MANNER COMMAND...: the peer is the server.
from_send() {
    local case="send to $1, $3" layout=$2 manner=$3
    shift 3
    exchange=$((exchange + 1))
    local name="send-$exchange" peer status=0
    start_listening "peer-$exchange" "$@" server "$WORK/$name.received" "$manner" || return 0
    peer=$PID
    limited "$FRAMELET" send "$ADDR" --layout "$layout" --input frames --output frames \
        <"$MESSAGES" >"$WORK/$name.replies" 2>"$WORK/$name.err" || status=$?
    if [ "$status" -eq 0 ]; then
        case_ok "$case: send ends with exit code 0"
        wait_for_exit "$peer" || true
    else
        case_failed "$case: send ends with exit code 0" \
            "it was $status; it said: $(tail -n 3 "$WORK/$name.err")"
        stop "$peer" KILL || true
    fi
    if [ "$STATUS" = 0 ]; then
        case_ok "$case: the peer succeeds"
    else
        case_failed "$case: the peer succeeds" \
            "its exit code was $STATUS; it said: $(tail -n 3 "$WORK/peer-$exchange.err")"
    fi
    compare "$case: every message arrives as it was sent" "$WORK/$name.received"
    compare "$case: every reply comes back as it was sent" "$WORK/$name.replies"
}

# `whole` writes frames as the peer likes to, then ends its half and waits for the
# server's end; `pieces` is the same byte by byte, then at odd sizes; `close`
# writes as `whole` does, and closes at once.
#
# both_ways PEER LAYOUT MANNERS MANNERS COMMAND...: first to serve, then from send.
both_ways() {
    local peer=$1 layout=$2 to=$3 from=$4 manner
    shift 4
    for manner in $to; do to_serve "$peer" "$layout" "$manner" "$@"; done
    for manner in $from; do from_send "$peer" "$layout" "$manner" "$@"; done
}

if needs twisted; then
    both_ways "Twisted Int32StringReceiver" u32be "whole pieces close" whole "$PYTHON" "$PEERS/twisted_peer.py"
fi
if needs asyncio; then
    both_ways "asyncio readexactly" u32be "whole pieces close" "whole pieces" "$PYTHON" "$PEERS/asyncio_peer.py"
fi
if needs erlang escript:erlang-base; then
    both_ways "Erlang {packet,4}" u32be "whole close" whole escript "$PEERS/erlang_peer.escript"
fi
if needs bitconverter; then
    both_ways "BitConverter's layout" u32le "whole pieces close" "whole pieces" "$PYTHON" "$PEERS/bitconverter_peer.py"
fi

# ---- the examples of the page

mkdir "$WORK/bin"
ln -s "$FRAMELET" "$WORK/bin/framelet"
# PostgreSQL refuses to run as root.
if [ "$(id -u)" -eq 0 ] && id postgres >/dev/null 2>&1; then
    chmod 711 "$WORK"
    for program in initdb postgres; do
        printf '#!/bin/sh\nchown postgres .\nexec setpriv --reuid=postgres --regid=postgres --clear-groups %s "$@"\n' \
            "$(command -v "$program")" >"$WORK/bin/$program"
        chmod 755 "$WORK/bin/$program"
    done
fi

# block NAME: the commands. shown NAME: what the page says that they print.
block() {
    awk -v start='```sh peers '"$1" '$0 == start { on = 1; next } /^```/ { on = 0 } on' "$PAGE"
}
shown() {
    awk -v start='```sh peers '"$1" '
        $0 == start { found = 1 }
        /^```/ { on = 0 }
        on
        found && $0 == "```text" { on = 1; found = 0 }' "$PAGE"
}

# The ports of the page may be taken here; each becomes a free one.
on_free_ports() {
    local script=$1 shown free
    mapfile -t shown < <(grep -ow '48[0-9][0-9]' "$script" | sort -u)
    mapfile -t free < <("$PYTHON" -c '
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
for one in sockets: print(one.getsockname()[1])' "${#shown[@]}")
    local index
    for index in "${!shown[@]}"; do sed -i "s/\b${shown[index]}\b/${free[index]}/g" "$script"; done
}

printed() {
    [ -e "$WORK/$1.done" ] && cmp -s "$WORK/$1.shown" "$WORK/$1.out"
}

example() {
    local name=$1
    local directory=$WORK/example-$name case="the example $name prints what the page shows"
    mkdir "$directory"
    shown "$name" >"$WORK/$name.shown"
    {
        # The servers and this shell get the same signal; it waits for them.
        printf 'set -euo pipefail\ntrap wait TERM\n'
        block "$name"
        printf 'touch %q\nwait\n' "$WORK/$name.done"
    } >"$WORK/$name.sh"
    on_free_ports "$WORK/$name.sh"
    # Without --foreground, timeout passes signals on to all that the shell started.
    start "$name" timeout --kill-after=5 "$LIMIT" env -C "$directory" \
        PATH="$WORK/bin:$PATH" bash "$WORK/$name.sh"
    local pid=$PID
    # shellcheck disable=SC2034 # for lib.sh
    LAST_SIGNAL[$pid]=TERM
    if lib_poll "the output that the page shows" "$pid" printed "$name"; then
        case_ok "$case"
    else
        case_failed "$case" "$WHY; $(diff "$WORK/$name.shown" "$WORK/$name.out" | head -n 5)"
    fi
    if [ -n "${lib_running[$pid]:-}" ]; then stop "$pid" || case_failed "$name stops" "$WHY"; fi
}

LIMIT=30
for name in "${examples[@]}"; do
    # shellcheck disable=SC2086 # several words
    if needs "$name" ${programs[$name]-unknown:none}; then example "$name"; fi
done

finish
