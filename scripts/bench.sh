#!/usr/bin/env bash
# How fast is framelet, next to other servers? Builds it and its peers
# (benches/peers), runs them against the same generator, and prints a table.
#
#     scripts/bench.sh [--rounds N] [--quick] [--out DIR]
#
#     --rounds N   how often each server is measured (default: 5)
#     --quick      one short round, to check that everything works
#     --out DIR    where table.md, bench.svg and bench.json go: the table, a chart,
#                  and every figure (default: bench in cargo's target directory).
#                  `--out benches/results` is what docs/performance.md shows
#
# Needs bash, cargo, cc, openssl, python3 and taskset; uses ip and unshare, and measures Twisted, if they are there.
# benches/README.md says what is measured and how to read the results. All servers
# listen on the loopback interface and end with the script.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

command -v cargo >/dev/null || die "cargo is needed and was not found; https://rustup.rs installs it"
need cc gcc
need openssl openssl
need python3 python3
need taskset util-linux

target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$ROOT/$target ;; esac
export CARGO_TARGET_DIR=$target
peers=$ROOT/benches/peers
built=$target/release

printf 'building (the first time, this may take some minutes)\n' >&2
(cd "$ROOT" && cargo build --quiet --release --locked --bins --example tutorial_server) || die "cargo build failed"
(cd "$peers/tokio" && cargo build --quiet --release --locked) || die "cargo build of the peer failed"
cc -O2 -o "$built/peer-epoll" "$peers/epoll.c" || die "cc failed"

# Measures on a loopback interface of its own, if the system allows it: nobody else uses that, and it has cubic, the
# congestion control that Linux has by default. BBR paces with timers, on loopback too, and messages of 1 KiB may then
# take any server three times the CPU time.
alone=()
for how in "unshare --net" "unshare --user --map-root-user --net"; do
    read -ra inside <<<"$how"
    if "${inside[@]}" ip link set lo up 2>/dev/null; then
        alone=("${inside[@]}" bash -c 'ip link set lo up
            { echo cubic >/proc/sys/net/ipv4/tcp_congestion_control; } 2>/dev/null ||
                echo "the congestion control stays as it is" >&2
            exec "$@"' _)
        break
    fi
done
[ ${#alone[@]} -gt 0 ] || printf 'measuring on the loopback interface of the system, which others use as well\n' >&2

# Each server chooses its own number of threads.
unset SMOL_THREADS TOKIO_WORKER_THREADS
# -B: write no Python cache next to the sources.
exec ${alone[@]+"${alone[@]}"} python3 -B "$ROOT/benches/compare.py" --built "$built" "$@"
