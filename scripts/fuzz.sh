#!/usr/bin/env bash
# Fuzzes one target for some time, with the Rust toolchain that is there and without cargo-fuzz:
#
#     scripts/fuzz.sh TARGET [SECONDS]
#
# SECONDS (60) bound it. TARGET is a file of fuzz/fuzz_targets/. An input that breaks a claim is left in
# fuzz/artifacts/; new inputs that reach new code go to fuzz/target/found/TARGET, not to the corpus.
#
# Needs bash, the coreutils, and a C++ compiler for libFuzzer. Options for libFuzzer may follow SECONDS.
#
# .ci/run does it for a few seconds a target, which shows that fuzzing works, and little more. What was found earlier
# is in fuzz/corpus: tests/corpus.rs checks the claims for it, in each `cargo test`.

set -euo pipefail

die() {
    printf 'fuzz.sh: %s\n' "$*" >&2
    exit 1
}

TARGET=${1-}
SECONDS_TO_RUN=${2:-60}
case $SECONDS_TO_RUN in *[!0-9]*) die "usage: fuzz.sh TARGET [SECONDS]" ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"
[ -f "fuzz_targets/$TARGET.rs" ] || die "usage: fuzz.sh TARGET [SECONDS]; the targets are in fuzz/fuzz_targets/"
shift "$(($# < 2 ? $# : 2))"

host=$(rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes, except for the sanitizer: there is no unsafe code. RUSTC_BOOTSTRAP lets a stable
# compiler accept these flags.
coverage=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
RUSTC_BOOTSTRAP=1 RUSTFLAGS="--cfg fuzzing ${coverage[*]}" \
    cargo build --quiet --release --target "$host" --bin "$TARGET"
mkdir -p "target/found/$TARGET" "artifacts/$TARGET"
# Layouts are kept as long as the process runs, so memory grows.
"target/$host/release/$TARGET" -artifact_prefix="artifacts/$TARGET/" -max_total_time="$SECONDS_TO_RUN" \
    -timeout=10 -rss_limit_mb=8192 -max_len=512 "$@" "target/found/$TARGET" "corpus/$TARGET"
