#!/usr/bin/env bash
# Does anything grow, get lost or stand still in a long time of work (P21)? Three servers with
# SQLite, one of them over TLS, take messages with and without acknowledgements, floods,
# short connections and a client that measures, while they are stopped, their databases
# locked, their disks full, connections reset, and clients killed. The third server is
# killed as well (kill -9), again and again. Old messages are pruned all the time.
#
#     scripts/soak.sh [MINUTES]
#
# In 30 minutes (2 are the default), the first two servers have at least 2 million messages
# and 10,000 connections each. The script ends with a table, and with exit code 1 if a
# promise was broken: a message was lost or doubled, memory grew by 1 MiB over the run,
# the descriptors at the end are not those of the start, a client failed that should not.
#
# Needs bash, the coreutils, python3 and openssl. Without the permission to mount a file
# system, no disk is full. FRAMELET=… names the program to test, SEED=… repeats the faults.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MINUTES=${1:-2}
case $MINUTES in '' | *[!0-9.]*) die "usage: soak.sh [MINUTES]" ;; esac
need python3 python3
need openssl openssl
framelet_binary
work_dir

# The certificates of docs/tls.md.
certificates() {
    cd "$WORK"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj '/CN=soak CA' -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj '/CN=soak' -addext 'subjectAltName=DNS:localhost' \
        -keyout server-key.pem -out server.csr
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out server-cert.pem
}
said=$( (certificates) 2>&1) || die "openssl cannot make certificates: $said"

# In a namespace of its own, mounts end with it, whatever ends it.
alone=()
if unshare --mount true 2>/dev/null; then alone=(unshare --mount); fi
exec 3>&1 4>&2
driver() {
    # shellcheck disable=SC2317,SC2329 # called by its name, through `start`
    exec "${alone[@]}" python3 "$ROOT/scripts/soak/soak.py" "$FRAMELET" "$MINUTES" "$WORK" "${SEED:-$RANDOM}" >&3 2>&4
}
start driver driver
LAST_SIGNAL[$PID]=TERM
# The load has to end after its time, each client within minutes.
LIMIT=$(awk -v minutes="$MINUTES" 'BEGIN { print int(minutes * 60) + 900 }')
wait_for_exit "$PID" || die "$WHY"
lib_ended=yes
exit "$STATUS"
