# shellcheck shell=bash
# The cases of scripts/faults.sh about what lies between clients, servers and Redis: a bad
# network, and a load balancer. It has the variables and functions that these use.

# shellcheck disable=SC2317,SC2329 # many functions are called by their names
# shellcheck disable=SC2153,SC2154 # some variables are set by scripts/faults.sh

# ---- a network that loses, delays, doubles and reorders packets, and one that is cut

network() {
    if ! has nsenter || ! has ip || ! [ -c /dev/net/tun ] || ! unshare --net true 2>/dev/null; then
        not_run "bad networks, because a network namespace needs root, iproute2 and /dev/net/tun"
        return
    fi
    start near unshare --net sleep 3600
    NEAR=$PID
    start far unshare --net sleep 3600
    FAR=$PID
    lib_poll "a namespace" "$NEAR" is_apart "$NEAR" || die "$WHY"
    lib_poll "a namespace" "$FAR" is_apart "$FAR" || die "$WHY"
    start network nsenter --target "$NEAR" --net python3 "$ROOT/scripts/faults/network.py" "$FAR" 10.9.8.1 10.9.8.2
    NETWORK=$PID
    if ! wait_for_line "$WORK/network.out" ready "$NETWORK"; then
        case_failed "a bad network" "$WHY"
        return
    fi
    start_far plain-network --idle-timeout 5s
    tries "over a network that loses, delays, doubles and reorders packets, each message arrives once" over_network plain-network
    tries "after a network that was cut, a sender goes on" over_cut_network plain-network
    tries "connections whose peers vanished are closed after --idle-timeout" half_open plain-network
    stop_server || true
    start_far tls-network "${SERVE_TLS[@]}"
    tries "the same network, with TLS" over_network tls-network "${SEND_TLS[@]}" --tls-name localhost
    tries "and cut, with TLS" over_cut_network tls-network "${SEND_TLS[@]}" --tls-name localhost
    stop_server || true
    stop "$NETWORK" TERM || true
    check "packets were lost and doubled" grep -Eq 'passed [0-9]+, lost [1-9][0-9]*, doubled [1-9]' "$WORK/network.out"
}

is_apart() {
    [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/$$/ns/net)" ]
}

start_far() {
    start_listening "$1" nsenter --target "$FAR" --net "$FRAMELET" serve 10.9.8.2:0 --to "sqlite:$WORK/$1.db" "${@:2}"
    SERVER_PID=$PID
}

# sending_near COUNT ARG...: as `sending`, from the other side of the network.
sending_near() {
    exec nsenter --target "$NEAR" --net "$FRAMELET" send "${@:2}" --ack --input lines < <(seq "$1")
}

# sent_once DATABASE SENDER COUNT
sent_once() {
    sqlite3 -readonly -cmd '.timeout 5000' "$1" "SELECT payload FROM messages WHERE sender = '$2' ORDER BY id" |
        cmp - <(seq "$3")
}

over_network() {
    kill -USR2 "$NETWORK"
    local sender=${SENDER:2}01
    start near-client sending_near 50000 "$ADDR" --sender "$sender" "${@:2}"
    is_sent "$PID" near-client && sent_once "$WORK/$1.db" "$sender" 50000
}

over_cut_network() {
    local sender=${SENDER:2}02 client
    kill -USR2 "$NETWORK"
    start cut-client sending_near 50000 "$ADDR" --sender "$sender" --timeout 4s --retry 60s --verbose "${@:2}"
    client=$PID
    lib_poll "some rows" "$client" has_rows "$WORK/$1.db" 55000 || { printf '%s\n' "$WHY" && return 1; }
    kill -USR1 "$NETWORK"
    # Until the client takes the connection for lost.
    wait_for_line "$WORK/cut-client.err" 'was lost' "$client" || { printf '%s\n' "$WHY" && return 1; }
    kill -USR2 "$NETWORK"
    is_sent "$client" cut-client && sent_once "$WORK/$1.db" "$sender" 50000
}

half_open() {
    local host=${ADDR%:*} port=${ADDR##*:}
    kill -USR2 "$NETWORK"
    # They send nothing, and their ends are lost with the network.
    start silent nsenter --target "$NEAR" --net bash -c \
        "for n in {1..10}; do exec {fd}<>/dev/tcp/$host/$port; done; echo connected; sleep 600"
    wait_for_line "$WORK/silent.out" connected "$PID" || { printf '%s\n' "$WHY" && return 1; }
    kill -USR1 "$NETWORK"
    stop "$PID" KILL || true
    lib_poll "no open connection" "$SERVER_PID" none_open "$1" || { printf '%s\n' "$WHY" && return 1; }
}

none_open() {
    kill -USR1 "$SERVER_PID"
    sleep 0.2
    tail -n 1 "$WORK/$1.err" | grep -q ' 0 of [1-9][0-9] connections open'
}

# ---- servers after a load balancer, killed in turn

balancer() {
    if ! has haproxy || ! has redis-server || ! has redis-cli; then
        not_run "servers after a load balancer, because there is no haproxy or no redis-server"
        return
    fi
    if ! "$FRAMELET" --version | grep -q redis; then
        not_run "servers after a load balancer, because $FRAMELET was built without the feature redis"
        return
    fi
    free_port redis_answers redis redis_at || die "redis-server does not start: $WHY"
    REDIS_PORT=$PORT
    tries "after haproxy with PROXY v2, servers that are killed in turn have each message once" \
        behind_balancer v2 ' send-proxy-v2 check-send-proxy' '--proxy-protocol' ''
    tries "after haproxy that passes TLS on, servers that are killed in turn have each message once" \
        behind_balancer tls '' "${SERVE_TLS[*]}" "${SEND_TLS[*]}"
}

# free_port ANSWERS NAME COMMAND: starts COMMAND PORT on a free port; sets PORT.
free_port() {
    for _ in 1 2 3 4 5; do
        PORT=$((20000 + RANDOM % 10000))
        start "$2" "$3" "$PORT"
        if lib_poll "an answer" "$PID" "$1" "$PORT"; then return 0; fi
    done
    return 1
}

redis_at() {
    exec redis-server --port "$1" --bind 127.0.0.1 --save "" --appendonly yes --dir "$WORK"
}

redis_answers() {
    [ "$(redis-cli -p "$1" PING 2>/dev/null)" = PONG ]
}

balancer_at() {
    cat >"$WORK/haproxy.cfg" <<END
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    retries 2
    option redispatch
listen framelet
    bind 127.0.0.1:$1
    balance roundrobin
    server one $ONE check inter 200ms fall 1 rise 1$BALANCED
    server two $TWO check inter 200ms fall 1 rise 1$BALANCED
END
    exec haproxy -db -f "$WORK/haproxy.cfg"
}

balancer_answers() {
    # shellcheck disable=SC2086 # words
    limited "$FRAMELET" ping "127.0.0.1:$1" --timeout 2s $SEND_WITH 2>/dev/null
}

# serve_redis NAME ADDR: starts one of the two servers.
serve_redis() {
    rm -f "$WORK/$1.err"
    # shellcheck disable=SC2086 # words
    start_listening "$1" "$FRAMELET" serve "$2" --to "redis://127.0.0.1:$REDIS_PORT/0?stream=$STREAM" $SERVE_WITH
}

redis_has() {
    [ "$(redis-cli -p "$REDIS_PORT" XLEN "$STREAM")" -ge "$1" ]
}

# behind_balancer STREAM BALANCED SERVE_WITH SEND_WITH
behind_balancer() {
    local count=60000 kills=8 pids=() clients=() number name at
    STREAM=$1 BALANCED=$2 SERVE_WITH=$3 SEND_WITH=$4
    serve_redis one 127.0.0.1:0 || return 1
    ONE=$ADDR pids[0]=$PID
    serve_redis two 127.0.0.1:0 || return 1
    TWO=$ADDR pids[1]=$PID
    free_port balancer_answers haproxy balancer_at || { printf '%s\n' "$WHY" && return 1; }
    local haproxy=$PID
    for name in a b c; do
        # shellcheck disable=SC2086 # words
        start "sender-$name" named_sending "$name" "$count" "127.0.0.1:$PORT" --window 200 --retry 60s $SEND_WITH
        clients+=("$PID sender-$name")
    done
    for ((number = 1; number <= kills; number++)); do
        # The points are spread over the first two thirds.
        lib_poll "a part" "$haproxy" redis_has $((2 * count * number / kills)) || { printf '%s\n' "$WHY" && return 1; }
        at=$((number % 2))
        stop "${pids[$at]}" KILL || true
        case $at in
            0) serve_redis one "$ONE" ;;
            1) serve_redis two "$TWO" ;;
        esac || return 1
        pids[at]=$PID
    done
    redis_has $((3 * count)) && { printf 'everything was sent before the last kill\n' && return 1; }
    for name in "${clients[@]}"; do
        # shellcheck disable=SC2086 # two words
        is_sent $name || return 1
    done
    redis-cli -p "$REDIS_PORT" XRANGE "$STREAM" - + >"$WORK/stream"
    for name in a b c; do
        grep "^message $name " "$WORK/stream" | cmp - <(seq --format "message $name %.0f" "$count") || return 1
    done
    [ "$(redis-cli -p "$REDIS_PORT" XLEN "$STREAM")" = $((3 * count)) ] || { printf 'there are more messages\n' && return 1; }
    for number in "${pids[@]}" "$haproxy"; do
        stop "$number" TERM || true
    done
}

# named_sending NAME COUNT ARG...: each payload is a line unlike any other line of Redis.
named_sending() {
    exec "$FRAMELET" send "${@:3}" --ack --input lines < <(seq --format "message $1 %.0f" "$2")
}
