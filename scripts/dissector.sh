#!/usr/bin/env bash
# Checks that Wireshark, with deploy/framelet.lua, sees in framelet's own traffic what framelet sees: the
# messages of every layout, cut into segments in different ways, and the acknowledgements of a connection.
#
# Needs tshark, python3, and cargo to build framelet (FRAMELET=… names a program that is already built).
# Needs no privileges: the captures are written from bytes.

# shellcheck disable=SC2317,SC2329 # some functions are called by their names in variables
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need tshark tshark
need python3 python3
framelet_binary
work_dir
# Preferences of the user must not matter.
export HOME=$WORK XDG_CONFIG_HOME=$WORK

# fields PCAP LAYOUT FIELD...: prints the values of these fields, one line for each packet that has some.
fields() {
    local pcap=$1 layout=$2 field arguments=()
    shift 2
    for field in "$@"; do arguments+=(-e "$field"); done
    # No script, a layout that is not known, or a fault in the script is said on standard error.
    tshark -X "lua_script:$ROOT/deploy/framelet.lua" -o "framelet.layout:$layout" -r "$pcap" -T fields \
        -E aggregator=' ' "${arguments[@]}" 2>"$WORK/tshark" | sed '/^[[:space:]]*$/d'
    if grep -i -e lua -e framelet "$WORK/tshark" >&2; then return 1; fi
}

capture() { "$ROOT/scripts/dissector.py" file "$@"; }

same() {
    diff <(printf '%s\n' "$1") <(printf '%s\n' "$2")
}

# ---- every kind of layout, in pieces of every kind

# The markers of git are headers; its other frames, and those of the others, have the header that is given.
messages=$WORK/messages
{
    printf '{"payload":"hello"}\n{"payload":""}\n{"payload":"a\\r\\n\\r\\nb:c"}\n'
    printf '{"payload":"%s"}\n' "$(printf 'x%.0s' {1..300})"
} >"$messages"
# Lengths of one byte end at 255, and one that is less than it counts does not begin at 0.
grep -v xxx "$messages" >"$WORK/short"
grep -v '""' "$messages" >"$WORK/not-empty"

while read -r layout; do
    input=$messages
    if [[ $layout =~ (^|:)u8|bcd2|dec2|hex2 ]]; then input=$WORK/short; fi
    if [[ $layout == *-* ]]; then input=$WORK/not-empty; fi
    "$FRAMELET" encode --layout "$layout" --input json <"$input" >"$WORK/frames"
    expected=$("$FRAMELET" decode --layout "$layout" --output json <"$WORK/frames" |
        python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    print(message["length"], message["payload"].encode().hex(), sep="\t" if message["length"] else "")')
    seen=
    for cut in 1 61; do
        capture "$WORK/frames" "$WORK/pcap" "$cut"
        seen=$(fields "$WORK/pcap" "$layout" framelet.payload_length framelet.payload) || seen="tshark failed"
        # Several frames of one packet are in one line; an empty payload is in none.
        seen=$(python3 -c 'import sys
for line in sys.stdin:
    lengths, _, payloads = line.rstrip("\n").partition("\t")
    payloads = payloads.split()
    for length in lengths.split():
        print(length, payloads.pop(0) if int(length) else "", sep="\t" if int(length) else "")' <<<"$seen")
        if [ "$seen" != "$expected" ]; then break; fi
    done
    check "the dissector reads $layout, in segments of 1 and 61 bytes" same "$expected" "$seen"
done < <(
    printf '%s\n' u8 u16be u16le u24be u24le u32be u32le u64be u64le varint ber u32le+self u16be+2 u16be-1 \
        u8+self h2:u16be+all h1:u32be:h2:data:xce dec4 hex4 hex4+self bcd4 dec/0d0a x24:dec/0d0a:data:x0d0a \
        dec/3a:data:x2c dec/20 x30:ber lsp postgres mqtt zabbix bgp
)

# ---- what a frame has beside its payload

printf 'S' | "$FRAMELET" encode --layout amqp --header 0100ff --input whole >"$WORK/frames"
capture "$WORK/frames" "$WORK/pcap" 3
check "the dissector shows header, length and fixed bytes" same $'0100ff\t1\tce' \
    "$(fields "$WORK/pcap" amqp framelet.header framelet.length framelet.fixed)"
printf '00000005hello0001' >"$WORK/frames"
capture "$WORK/frames" "$WORK/pcap" 6
check "a marker of git is a header" same '30303030' "$(fields "$WORK/pcap" git framelet.header | head -n 1)"

# ---- what is not a frame

printf 'GET / HTTP/1.1\r\n\r\n' >"$WORK/frames"
capture "$WORK/frames" "$WORK/pcap" 10
check "another protocol is malformed, and what follows is not read" \
    same $'the length 1195725856 is over the limit of 8388608\nAfter a malformed frame' \
    "$(fields "$WORK/pcap" u32be _ws.expert.message)"
printf '\0\0\0\1' >"$WORK/frames"
capture "$WORK/frames" "$WORK/pcap" 4
check "a length that does not count itself is malformed" same "the length 1 does not count itself" \
    "$(fields "$WORK/pcap" u32be+self _ws.expert.message)"
check "a layout that is none is said" same "no such layout: u99" "$(fields "$WORK/pcap" u99 _ws.expert.message)"

# ---- acknowledgements

# acknowledged NAME LAYOUT ARGUMENT...: sends three messages to such a server, past a relay that keeps a
# capture.
acknowledged() {
    local name=$1 layout=$2 sent=0
    shift 2
    start_server "server-$name" --layout "$layout" "$@"
    start_listening "relay-$name" "$ROOT/scripts/dissector.py" relay "$ADDR" "$WORK/pcap"
    local relay=$PID
    printf 'one\ntwo\nthree\n' | limited "$FRAMELET" send "$ADDR" --ack --input lines --layout "$layout" \
        --sender 000102030405060708090a0b0c0d0e0f 2>"$WORK/sent" || sent=$?
    wait_for_exit "$relay"
    stop_server TERM
    return "$sent"
}

for layout in u32be u64le+self; do
    acknowledged "$layout" "$layout" --output lines || die "$(cat "$WORK/sent")"
    check "the dissector shows the hello in $layout" same $'2\t000102030405060708090a0b0c0d0e0f\t1' \
        "$(fields "$WORK/pcap" "$layout" framelet.hello.version framelet.hello.sender framelet.hello.oldest)"
    check "the dissector shows the messages in $layout" same "6f6e65 74776f 7468726565" \
        "$(fields "$WORK/pcap" "$layout" framelet.payload | tr '\n' ' ' | sed 's/ $//')"
    # Between the first and the last count there may be others.
    counts=$(fields "$WORK/pcap" "$layout" framelet.ack.count | tr ' ' '\n' | sed -n '1p;$p' | tr '\n' ' ')
    check "the dissector shows the acknowledgements in $layout" same "0 3 " "$counts"
done
if acknowledged refused u32be --echo --output none; then die "a server with replies acknowledges"; fi
check "the dissector shows a refusal and its text" same $'2\t1' \
    "$(fields "$WORK/pcap" u32be framelet.refusal.code framelet.refusal.text | sed 's/\t..*/\t1/')"

finish
