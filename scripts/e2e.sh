#!/usr/bin/env bash
# Does the program do what its help says? Each command, format, layout, limit,
# signal and exit code, driven from outside as a user would.
#
# Needs bash, the coreutils, sed and grep. FRAMELET=… names the program to test.

# shellcheck disable=SC2317,SC2329 # many functions are called by their names, through `check`
set -euo pipefail
LIMIT=${LIMIT:-20}
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

framelet_binary
work_dir
unset SMOL_THREADS

# ---- helpers. Bytes are written with escapes, such as \0 \n \x80, wherever they are given

bytes() {
    printf '%b' "$1"
}

# says WORDS FILE: FILE is one line with WORDS in it, or empty if WORDS is.
says() {
    local said
    said=$(<"$2")
    case $1 in
        '') [ -z "$said" ] ;;
        *) [[ $said == *"$1"* && $said != *$'\n'* ]] ;;
    esac || { printf 'it said "%s" instead of "%s"\n' "$said" "$1" && return 1; }
}

# printed BYTES FILE: that is what FILE holds.
printed() {
    bytes "$1" | cmp - "$2" || { od -c "$2" | head -n 9 && return 1; }
}

# ends INPUT CODE WORDS ARG...: framelet with ARG... ends with CODE and says WORDS.
ends() {
    local input=$1 code=$2 words=$3 status=0
    shift 3
    limited "$FRAMELET" "$@" < <(bytes "$input") >"$WORK/out" 2>"$WORK/err" || status=$?
    if ! [[ $status =~ ^($code)$ ]]; then
        printf 'exit code %s instead of %s; it said: %s\n' "$status" "$code" "$(<"$WORK/err")"
        return 1
    fi
    says "$words" "$WORK/err"
}

# gives INPUT OUTPUT ARG...: framelet ends with 0, prints OUTPUT, and logs nothing.
gives() {
    ends "$1" 0 '' "${@:3}" && printed "$2" "$WORK/out"
}

# Cases whose arguments are their description: converts INPUT OUTPUT ARG..., fails CODE WORDS ARG...
converts() {
    check "${*:3}: '$1' becomes '$2'" gives "$@"
}
fails() {
    check "${*:3}: \"$2\", exit code $1" ends '' "$@"
}

# wired INPUT OUTPUT ARG...: framelet with these two files, and no other open file of the script.
wired() {
    exec "$FRAMELET" "${@:3}" <"$1" >"$2" 3>&- 4>&- 5>&-
}

# serve ARG...: starts a server that prints to $OUT and logs to $LOG.
# serve_into FILE ADDR ARG...: the same, with FILE as its standard output.
started=0
serve() {
    serve_into '' 127.0.0.1:0 "$@"
}
serve_into() {
    started=$((started + 1))
    LOG=$WORK/server-$started.err
    OUT=${1:-$WORK/server-$started.printed}
    start_listening "server-$started" wired /dev/null "$OUT" serve "${@:2}"
    SERVER_PID=$PID
}

# logs DESCRIPTION TEXT: the server logs TEXT, now or soon.
logs() {
    if wait_for_line "$LOG" "$2" "$SERVER_PID"; then case_ok "$1"; else case_failed "$1" "$WHY"; fi
}

# ended DESCRIPTION CODE BYTES [SIGNAL]: the server ends with CODE, and has printed BYTES.
ended() {
    if [ -n "${4:-}" ]; then stop_server "$4" || true; else wait_for_exit "$SERVER_PID" || true; fi
    check "$1" has_ended "$2" "$LOG" && if [ -f "$OUT" ]; then check "… it has printed '$3'" printed "$3" "$OUT"; fi
}
has_ended() {
    [ "$STATUS" = "$1" ] || { printf 'exit code %s; it said: %s' "$STATUS" "$(<"$2")" && return 1; }
}

# client ARG...: starts a client that reads the pipe `keys`, open as descriptor 4, and
# prints to the pipe `replies`, open as descriptor 5.
client() {
    start client wired "$WORK/keys" "$WORK/replies" send "$ADDR" "$@"
    CLIENT_PID=$PID
}
client_ended() {
    wait_for_exit "$CLIENT_PID" || true
    check "$1" has_ended "$2" "$WORK/client.err"
    check "… it says \"$3\"" says "$3" "$WORK/client.err"
}

# next_line_is TEXT: TEXT is the next line in the pipe `replies`.
next_line_is() {
    local line
    IFS= read -r -t "$LIMIT" line <&5 || line="nothing within $LIMIT s"
    [ "$line" = "$1" ] || { printf 'it is "%s"' "$line" && return 1; }
}

# A connection driven by the script, as descriptor 3.
connect() {
    exec 3<>"/dev/tcp/${ADDR%:*}/${ADDR##*:}"
}
put() {
    bytes "$1" >"$WORK/put"
    cat "$WORK/put" >&3 # in one write: the shell's own ends after each line feed
}
hang_up() {
    exec 3>&-
}
raw() {
    connect
    put "$1"
    hang_up
}
# Sends one message and half of another, and waits until the server has read both.
put_one_and_a_half() {
    connect
    put '\0\0\0\1a\0\0\0\5he'
    wait_for_bytes "$OUT" 2 "$SERVER_PID" || die "$WHY"
}

# ---- help, version, and invalid command lines

helps() {
    limited "$FRAMELET" "$@" --help >"$WORK/out" && [[ $(<"$WORK/out") == Example:*framelet*"Exit codes:"* ]]
}
check "--help begins with an example and ends with the exit codes" helps
for command in serve send encode decode; do
    check "$command --help does, too" helps "$command"
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
names_version() {
    limited "$FRAMELET" --version >"$WORK/out" && [[ $(<"$WORK/out") == "framelet $version"$'\n'"features: "* ]]
}
check "--version names the version and the features" names_version

fails 2 'which command?'
fails 2 'nonsense' nonsense
fails 2 '--nonsense' serve --nonsense
fails 2 'no such format' encode --input raw
fails 2 'no such format' serve --output whole
fails 2 'layout' decode --layout u33be
fails 2 'not a size' decode --max-message many
fails 2 'not a duration' send --timeout soon
fails 2 'cannot be zero' send --timeout 0s
fails 2 'a port is missing' serve localhost
fails 2 'from 0 to 65535' send localhost:65536
fails 2 'contradict' serve -v -q
fails 2 '--input has no use' send --message a --input lines
fails 2 '--max-message' decode --layout u8 --max-message 256
fails 2 '--memory' serve --memory 1k --max-message 1001
fails 2 '--max-connections' serve --max-connections 0
SMOL_THREADS=0 fails 2 'SMOL_THREADS=0' serve 127.0.0.1:0
fails 2 'no such file' encode "$WORK/missing"
fails 2 'is a directory' decode "$WORK"

# ---- encode and decode: formats, layouts, limits

converts 'a\nb\n\nc' '\0\0\0\3a\nb\0\0\0\1c' encode
converts '\na\r\nb\n\n\n' '\0\0\0\0\0\0\0\3a\nb\0\0\0\0' encode --input text
converts 'a\n\nb' '\0\0\0\1a\0\0\0\0\0\0\0\1b' encode --input lines
converts 'a\n\0\0b' '\0\0\0\2a\n\0\0\0\0\0\0\0\1b' encode --input nul
converts '00fF\n\n' '\0\0\0\2\0\xff\0\0\0\0' encode --input hex
converts 'AP8=\n\n' '\0\0\0\2\0\xff\0\0\0\0' encode --input base64
converts '{"payload":"\\u0000é"}\n{"payload_base64":"/w=="}' '\0\0\0\3\0é\0\0\0\1\xff' encode --input json
converts '\0\0\0\1a\0\0\0\0' '\1a\0' encode --input frames --layout u8
converts 'a\n\nb\n' '\0\0\0\5a\n\nb\n' encode --input whole
converts '' '\0\0\0\0' encode --input whole
converts '' '' encode

frames='\0\0\0\3a\nb\0\0\0\0\0\0\0\2\0\xff'
outputs=('lines a\nb\n\n\0\xff\n' 'text a\nb\n\n\n\0\xff\n\n' 'nul a\nb\0\0\0\xff\0' 'hex 610a62\n\n00ff\n'
    'base64 YQpi\n\nAP8=\n' "frames $frames" 'raw a\nb\0\xff' 'none ')
for output in "${outputs[@]}"; do
    converts "$frames" "${output#* }" decode --output "${output%% *}"
done
converts '\0\0\0\3a\nb\0\0\0\1\xff' \
    '{"number":1,"offset":0,"length":3,"payload":"a\\nb"}\n{"number":2,"offset":7,"length":1,"payload_base64":"/w=="}\n' \
    decode --output json

printf '%b' "$(printf '\\x%02x' {0..255})" >"$WORK/all"
printf '%02x\n' {0..255} >"$WORK/each"
round_trip() {
    "$FRAMELET" encode --input "$1" "$2" >"$WORK/frames" &&
        "$FRAMELET" decode --output "$3" "$WORK/frames" | "$FRAMELET" encode --input "$3" >"$WORK/again" &&
        [ -s "$WORK/again" ] && cmp "$WORK/again" "$WORK/frames"
}
for format in json hex base64 frames; do
    check "$format carries all 256 byte values in one message" round_trip whole "$WORK/all" "$format"
    check "$format carries each byte value in a message of its own" round_trip hex "$WORK/each" "$format"
done

both_ways() {
    gives 'hi' "$2hi" encode --layout "$1" && gives "$2hi" 'hi\n' decode --layout "$1"
}
for layout in 'u8 \2' 'u16be \0\2' 'u16le \2\0' 'u24be \0\0\2' 'u24le \2\0\0' 'u32be \0\0\0\2' 'u32le \2\0\0\0' \
    'u64be \0\0\0\0\0\0\0\2' 'u64le \2\0\0\0\0\0\0\0' 'u8+self \3' 'u16be+self \0\4' 'u16le+self \4\0' \
    'u24be+self \0\0\5' 'u24le+self \5\0\0' 'u32be+self \0\0\0\6' 'u32le+self \6\0\0\0' \
    'u64be+self \0\0\0\0\0\0\0\x0a' 'u64le+self \x0a\0\0\0\0\0\0\0' 'varint \2'; do
    check "layout ${layout% *}: a message of two bytes follows ${layout#* }" both_ways "${layout% *}" "${layout#* }"
done

long=$(head -c 256 /dev/zero | tr '\0' a)
converts 'abcd' '\0\0\0\4abcd' encode --max-message 4
converts '\0\0\0\4abcd' 'abcd\n' decode --max-message 4
check "encode: a message over the limit, exit code 3" ends 'a\n\nabcde' 3 'over the limit of 4' encode --max-message 4
check "… what came before it is not lost" printed '\0\0\0\1a' "$WORK/out"
check "encode: a message the layout cannot say, exit code 3" ends "$long" 3 'that u8 can say' encode --layout u8
check "decode: a length over the limit, exit code 3" ends '\0\0\0\1a\0\0\0\5' 3 \
    'message 2 at byte 5: length 5 is over the limit of 4' decode --max-message 4
check "… what came before it is not lost" printed 'a\n' "$WORK/out"
check "decode: the end inside a prefix, exit code 3" ends '\0\0\0' 3 'inside the prefix: got 3 of 4' decode
check "decode: the end inside a payload, exit code 3" ends '\0\0\0\2a' 3 'inside the payload: got 1 of 2' decode
check "decode: a length less than its prefix, exit code 3" ends '\0\0\0\3' 3 'at byte 0' decode --layout u32be+self
for input in 'hex xy' 'base64 !' 'json {'; do
    check "encode: what is not ${input% *}, exit code 2" ends "${input#* }" 2 'record 1 of the input: not ' \
        encode --input "${input% *}"
done

closed_pipe() {
    local statuses=()
    "$FRAMELET" "$@" 2>"$WORK/err" | head -c 10 >"$WORK/out" || statuses=("${PIPESTATUS[@]}")
    [ "${statuses[0]:-0}" -eq 141 ] || { printf 'exit code %s' "${statuses[0]:-0}" && return 1; }
    says '' "$WORK/err"
}
full_disk() {
    local status=0
    limited "$FRAMELET" "$@" >/dev/full 2>"$WORK/err" || status=$?
    [ "$status" -eq 2 ] && says 'no space left on device' "$WORK/err"
}
seq 200000 >"$WORK/many"
"$FRAMELET" encode --input lines "$WORK/many" >"$WORK/many-frames"
check "encode into a closed pipe: quiet, exit code 141" closed_pipe encode --input lines "$WORK/many"
check "decode into a closed pipe: quiet, exit code 141" closed_pipe decode "$WORK/many-frames"
check "encode onto a full disk: exit code 2" full_disk encode --input lines "$WORK/many"
check "decode onto a full disk: exit code 2" full_disk decode "$WORK/many-frames"

mkfifo "$WORK/keys" "$WORK/replies"
exec 4<>"$WORK/keys" 5<>"$WORK/replies"
start decode wired "$WORK/keys" "$WORK/replies" decode
bytes '\0\0\0\1a' >&4
check "decode prints a message at once, while its input stays open" next_line_is a
stop "$PID" TERM

# ---- serve and send: formats, layouts, replies

serve --output frames
check "send: lines up to an empty line are a message" gives 'a\nb\n\nc' '' send "$ADDR"
ended "serve receives exactly these two" 0 '\0\0\0\3a\nb\0\0\0\1c' TERM

serve --output hex
check "send --message, repeated" gives 'ignored' '' send "$ADDR" --message a --message '' --message $'b\n\nc'
check "send --once" gives 'a\n\nb\n\nc' '' send "$ADDR" --once
check "send without any input" gives '' '' send "$ADDR"
for input in 'lines a\n\nb' 'nul a\n\0b' 'hex 00ff' 'base64 AP8=' 'json {"payload":"a"}' 'frames \0\0\0\1a\0\0\0\0' \
    'whole a\n\nb\n'; do
    check "send --input ${input%% *}" gives "${input#* }" '' send "$ADDR" --input "${input%% *}"
done
check "send: what is not in its format, exit code 2" ends '01\nxy' 2 'record 2 of the input' send "$ADDR" --input hex
check "send: a message over the limit, exit code 3" ends abc 3 'over the limit of 2' send "$ADDR" --max-message 2
ended "serve receives all of them in order" 0 \
    '61\n\n620a0a63\n61\n61\n\n62\n610a\n62\n00ff\n00ff\n61\n61\n\n610a0a620a\n01\n' TERM

for output in "${outputs[@]}"; do
    serve --echo --output "${output%% *}"
    check "send --output ${output%% *} prints replies" gives "$frames" "${output#* }" \
        send "$ADDR" --input frames --output "${output%% *}" --expect 3
    ended "serve --output ${output%% *}" 0 "${output#* }" TERM
    check "… it counts the messages" grep -q '3 messages over 1 connection' "$LOG"
done

json_of_serve() {
    local json='^{"time":"[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z","peer":"127\.0\.0\.1:[0-9]+","connection":1,"number":1,"offset":0,'
    grep -Ex "$json\"length\":3,\"payload\":\"abc\"}" "$OUT"
}
serve --output json
check "send to serve --output json" gives 'abc' '' send "$ADDR"
check "… it says where a message came from" json_of_serve
stop_server TERM

for layout in 'u8 \2' 'u16le \2\0' 'u32le+self \6\0\0\0' 'u64be \0\0\0\0\0\0\0\2' 'varint \2'; do
    serve --layout "${layout% *}"
    raw "${layout#* }hi"
    wait_for_bytes "$OUT" 3 "$SERVER_PID" || true
    check "send --layout ${layout% *}" gives 'ho' '' send "$ADDR" --layout "${layout% *}"
    ended "serve --layout ${layout% *}, to it and to a peer that writes ${layout#* }" 0 'hi\nho\n' TERM
done

serve
check "a server that never replies: exit code 4" ends 'a' 4 \
    '0 of 1 replies came, and no more within 300ms' send "$ADDR" --timeout 300ms --expect 1
kill -STOP "$SERVER_PID"
check "a server that never closes: exit code 4" ends 'b' 4 \
    'the server has not closed the connection within 300ms' send "$ADDR" --timeout 300ms
kill -CONT "$SERVER_PID"
wait_for_bytes "$OUT" 4 "$SERVER_PID" || true
ended "it all arrives once the server goes on" 0 'a\nb\n' TERM
check "nobody listens: exit code 1" ends 'a' 1 'connection refused; is the server running?' send "$ADDR"
check "nobody listens for a while: exit code 1" ends 'a' 1 'within 100ms: connection refused' send "$ADDR" --retry 100ms
LIMIT=10 check "a name that does not resolve fails within the timeout: exit code 1, or 4 if nobody answers" \
    ends 'a' '1|4' 'cannot connect to does-not-exist.invalid:1: ' send does-not-exist.invalid:1 --timeout 3s

serve_into "$WORK/replies" 127.0.0.1:0
connect
put '\0\0\0\1a'
check "serve prints a message at once, while the connection stays open" next_line_is a
hang_up
stop_server TERM
serve --echo
client
bytes 'a\n\n' >&4
check "send prints a reply at once, while its input stays open" next_line_is a
stop_server KILL
client_ended "the server is killed while send waits for input: exit code 1 at once" 1 'the server'
serve --verbose
client
wait_for_line "$LOG" 'connection 1 from' "$SERVER_PID" || die "$WHY"
ended "the server ends while send waits for input" 0 '' TERM
client_ended "… and send with exit code 1 at once" 1 'was lost: connection reset by peer'

# ---- bytes that are not a message

# One server for each: a single one would drop the later lines from its log.
for foreign in 'this looks like an HTTP request|GET / HTTP/1.1\r\nHost: a\r\n\r\n' \
    '"POST"; this looks like an HTTP request|POST /x HTTP/1.1\r\n' \
    'this looks like an HTTP response|HTTP/1.1 400 Bad Request\r\n' \
    'this looks like a TLS handshake|\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03' \
    'this looks like a TLS alert|\x15\x03\x03\0\2\2\x28' 'this looks like SSH|SSH-2.0-OpenSSH_9.2\r\n' \
    'this looks like JSON|{"id":1}\n' 'text without a length prefix ("hello there\r\n")|hello there\r\n' \
    'as u32le it would be 5: try --layout u32le|\5\0\0\0hello' 'prefix 1b 5b 33 31 "\u{1b}[31"|\x1b[31mred' \
    'try --layout u32be+self|\0\0\0\x09hello\0\0\0\x09world'; do
    words=${foreign%%|*} sent=${foreign#*|}
    serve
    raw "$sent"
    logs "serve: $words" "$words"
    check "… decode says the same, exit code 3" ends "$sent" 3 "framelet: message ${LINE##*: message }" decode
    check "… nothing of it is in the log unescaped" test "$(tr -d '\n -~' <"$LOG" | wc -c)" -eq 0
    stop_server TERM
done
serve
raw '\0\0\0\1a\0\0\0\5he'
logs "serve: the end inside a message" 'message 2 at byte 5: the stream ended inside the payload: got 2 of 5 bytes'
check "other connections go on" gives 'b' '' send "$ADDR"
ended "complete messages before an error are not lost" 0 'a\nb\n' TERM

# ---- limits

serve --max-message 4
check "a message of --max-message bytes" gives 'abcd' '' send "$ADDR"
check "one of a byte more: exit code 1" ends 'abcde' 1 'the server' send "$ADDR"
logs "… the server says why" 'length 5 is over the limit of 4'
ended "… and goes on until it is told to end" 0 'abcd\n' TERM

serve --max-connections 1 --verbose
connect
logs "--max-connections 1: the first is served" 'connection 1 from'
check "… the second is not: exit code 1" ends 'a' 1 'reset by peer' send "$ADDR"
logs "… the server says why" '1 connection open, the limit (--max-connections)'
hang_up
logs "… until the first has gone" 'closed without a message'
raw '\0\0\0\1b'
logs "… then another one is served" 'closed after 1 message'
ended "… and it alone" 0 'b\n' TERM

serve --message-timeout 200ms --idle-timeout 300ms
put_one_and_a_half
logs "--message-timeout" 'message 2 at byte 5: not complete within 200ms: got 6 of 9 bytes'
hang_up
client
logs "--idle-timeout" 'the peer was idle for 300ms (--idle-timeout)'
client_ended "… send learns of it: exit code 1" 1 'was lost: connection reset by peer'
check "… also if it waits for replies: exit code 1" ends 'b' 1 \
    'was lost: connection reset by peer' send "$ADDR" --expect 1
ended "what was complete is not lost" 0 'a\nb\n' TERM

# ---- how much is logged

for verbosity in --quiet '' --verbose; do
    # shellcheck disable=SC2086 # nothing is no argument
    serve $verbosity
    connect
    hang_up
    check "a message after a connection without a byte" gives 'a' '' send "$ADDR"
    raw 'GET / HTTP/1.1\r\n'
    raw '\0\0\0\1b'
    wait_for_bytes "$OUT" 4 "$SERVER_PID" || true
    ended "serve $verbosity" 0 'a\nb\n' TERM
    probe=0 http=0
    if grep -q 'connection 1 .*: closed without a message' "$LOG"; then probe=1; fi
    if grep -q 'HTTP request' "$LOG"; then http=1; fi
    case $verbosity in
        --quiet) check "… it says only where it listens" says "listening on $ADDR" "$LOG" ;;
        --verbose) check "… it mentions both the probe and the web client" test "$probe$http" = 11 ;;
        *) check "… it mentions the web client, and no probe" test "$probe$http" = 01 ;;
    esac
done

# ---- shutdown

for ending in 'TERM 143' 'INT 130'; do
    signal=${ending% *} code=${ending#* }
    serve --grace 60s --verbose
    connect
    wait_for_line "$LOG" 'connection 1 from' "$SERVER_PID" || die "$WHY"
    ended "SIG$signal closes an idle connection" 0 '' "$signal"
    hang_up

    serve --grace 60s
    put_one_and_a_half
    kill -"$signal" "$SERVER_PID"
    logs "SIG$signal waits for the end of a message" 'ending 1 connection'
    check "… no other connection is accepted" ends 'x' 1 'connection refused' send "$ADDR"
    put 'llo'
    ended "… and then the server ends" 0 'a\nhello\n'
    hang_up

    serve --grace 60s
    put_one_and_a_half
    kill -"$signal" "$SERVER_PID"
    wait_for_line "$LOG" 'ending 1 connection' "$SERVER_PID" || die "$WHY"
    ended "a second SIG$signal does not wait: exit code $code" "$code" 'a\n' "$signal"
    hang_up
done
serve --grace 200ms
put_one_and_a_half
ended "the grace period ends" 0 'a\n' TERM
check "… it says whom it cuts off" grep -q 'cutting off 1 connection that did not end in time (--grace)' "$LOG"
hang_up

# ---- addresses

serve
fails 1 'address already in use' serve "$ADDR"
stop_server TERM
ADDR=unix:$WORK/socket
client --message early --retry 20s --verbose
wait_for_line "$WORK/client.err" 'retrying' "$CLIENT_PID" || die "$WHY"
serve_into '' "$ADDR"
wait_for_exit "$CLIENT_PID" || true
check "send --retry may be started before the server" has_ended 0 "$WORK/client.err"
check "a Unix socket" gives 'a' '' send "$ADDR"
fails 1 'address already in use' serve "$ADDR"
ended "a killed server" 137 'early\na\n' KILL
check "… leaves its socket file behind" test -S "$WORK/socket"
check "… where nobody listens: exit code 1" ends 'a' 1 'connection refused' send "$ADDR"
serve_into '' "$ADDR"
check "… and which the next server replaces" gives 'b' '' send "$ADDR"
ended "… before it ends" 0 'b\n' TERM
check "… and removes it" test ! -e "$WORK/socket"
check "no socket file: exit code 1" ends 'a' 1 'no such file' send "$ADDR"
LIMIT=2 fails 1 'cannot listen on unix:' serve "unix:$WORK/all"
check "… a file that is no socket is left alone" test -s "$WORK/all"

# ---- the server's standard output

serve_into /dev/full 127.0.0.1:0
check "send to a server on a full disk: exit code 1" ends 'a' 1 'the server' send "$ADDR"
ended "serve onto a full disk: exit code 2" 2 ''
check "… it says what is lost" grep -q 'no space left on device; 1 message received was not written' "$LOG"
serve_into "$WORK/replies" 127.0.0.1:0
exec 5>&-
check "send to a server into a closed pipe: exit code 1" ends 'a' 1 'the server' send "$ADDR"
ended "serve into a closed pipe: exit code 141" 141 ''
check "… it says what is lost" grep -q 'broken pipe; 1 message received was not written' "$LOG"

finish
