#!/usr/bin/env bash
# Do framelet and other programs understand each other?
#
# Real peers send to `framelet serve`, and `framelet send` sends to real peers that
# send everything back: Twisted, asyncio, Erlang, and a peer that writes as .NET's
# BitConverter does. peers/contents.py defines what they exchange, and compares all
# of it byte for byte.
#
# Needs python3 with venv, a package index for pip (Twisted is installed into a
# temporary directory), and erlang-base. If anything is missing, the script fails;
# nothing is skipped. FRAMELET=… names the program to test.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PEERS=$ROOT/scripts/peers
export PYTHONDONTWRITEBYTECODE=1

need python3 python3
need escript erlang-base
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
LIMIT=180 set_up "cannot install Twisted with pip" \
    "$PYTHON" -m pip install --quiet --no-cache-dir --disable-pip-version-check 'twisted>=22.10'
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

twisted=("Twisted Int32StringReceiver" u32be)
asyncio=("asyncio readexactly" u32be)
erlang=("Erlang {packet,4}" u32be)
bitconverter=("BitConverter's layout" u32le)
run_twisted=("$PYTHON" "$PEERS/twisted_peer.py")
run_asyncio=("$PYTHON" "$PEERS/asyncio_peer.py")
run_erlang=(escript "$PEERS/erlang_peer.escript")
run_bitconverter=("$PYTHON" "$PEERS/bitconverter_peer.py")

# `whole` writes frames as the peer likes to, then ends its half and waits for the
# server's end; `pieces` is the same byte by byte, then at odd sizes; `close`
# writes as `whole` does, and closes at once.
for manner in whole pieces close; do
    to_serve "${twisted[@]}" "$manner" "${run_twisted[@]}"
    to_serve "${asyncio[@]}" "$manner" "${run_asyncio[@]}"
    to_serve "${bitconverter[@]}" "$manner" "${run_bitconverter[@]}"
done
for manner in whole close; do
    to_serve "${erlang[@]}" "$manner" "${run_erlang[@]}"
done

from_send "${twisted[@]}" whole "${run_twisted[@]}"
from_send "${erlang[@]}" whole "${run_erlang[@]}"
for manner in whole pieces; do
    from_send "${asyncio[@]}" "$manner" "${run_asyncio[@]}"
    from_send "${bitconverter[@]}" "$manner" "${run_bitconverter[@]}"
done

finish
