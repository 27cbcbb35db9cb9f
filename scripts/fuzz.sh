#!/usr/bin/env bash
# Fuzzes one target for some time, with the Rust toolchain that is there and without cargo-fuzz:
#
#     scripts/fuzz.sh TARGET [SECONDS]
#     scripts/fuzz.sh --coverage
#
# SECONDS (60) bound it. TARGET is a file of fuzz/fuzz_targets/. An input that breaks a claim is left in
# fuzz/artifacts/; new inputs that reach new code go to fuzz/target/found/TARGET, not to the corpus.
#
# Needs bash, the coreutils, and a C++ compiler for libFuzzer. Options for libFuzzer may follow SECONDS.
#
# --coverage prints which share of the lines of each file of src/ the inputs of fuzz/corpus reach, in percent, and how
# many lines none of them reaches. fuzz/target/coverage/lines.txt then has each line with how often it was run. Needs
# `rustup component add llvm-tools`, and python3.
#
# .ci/run does it for a few seconds a target, which shows that fuzzing works, and little more. What was found earlier
# is in fuzz/corpus: tests/corpus.rs checks the claims for it, in each `cargo test`.

set -euo pipefail

die() {
    printf 'fuzz.sh: %s\n' "$*" >&2
    exit 1
}

coverage() {
    local host tools build target objects=()
    host=$(rustc -vV | sed -n 's/^host: //p')
    tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
    [ -x "$tools/llvm-cov" ] || die "there is no $tools/llvm-cov: run rustup component add llvm-tools"
    build=target/coverage
    RUSTFLAGS="--cfg fuzzing -Cinstrument-coverage" \
        cargo build --quiet --locked --target "$host" --target-dir "$build" --bins
    rm -f "$build"/*.profraw
    for target in fuzz_targets/*.rs; do
        target=$(basename "$target" .rs)
        # Without options for fuzzing it runs each input once.
        LLVM_PROFILE_FILE=$build/$target.profraw "$build/$host/debug/$target" "corpus/$target"/* 2>"$build/$target.log" ||
            die "an input of $target fails: see fuzz/$build/$target.log"
        "$tools/llvm-profdata" merge -sparse "$build/$target.profraw" -o "$build/$target.profdata"
        "$tools/llvm-cov" export -summary-only "$build/$host/debug/$target" \
            -instr-profile="$build/$target.profdata" --sources ../src >"$build/$target.json"
        objects+=(-object "$build/$host/debug/$target")
    done
    "$tools/llvm-profdata" merge -sparse "$build"/*.profraw -o "$build/all.profdata"
    "$tools/llvm-cov" show "${objects[@]}" -instr-profile="$build/all.profdata" --sources ../src >"$build/lines.txt"
    "$tools/llvm-cov" export -summary-only "${objects[@]}" -instr-profile="$build/all.profdata" --sources ../src |
        python3 ../scripts/coverage.py "$build" fuzz_targets/*.rs
}

if [ "${1-}" = --coverage ]; then
    cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"
    coverage
    exit
fi

TARGET=${1-}
SECONDS_TO_RUN=${2:-60}
case $SECONDS_TO_RUN in *[!0-9]*) die "usage: fuzz.sh TARGET [SECONDS], or fuzz.sh --coverage" ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"
[ -f "fuzz_targets/$TARGET.rs" ] || die "usage: fuzz.sh TARGET [SECONDS], or fuzz.sh --coverage; the targets are in fuzz/fuzz_targets/"
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
