#!/usr/bin/env bash
# How many instructions does a message cost? Unlike its time, this number is the same
# on a busy machine, so a check can rely on it.
#
#     scripts/instructions.sh             fails if a path costs over 10 % more than
#                                         benches/instructions.txt says
#     scripts/instructions.sh --update    writes the counts into that file
#     scripts/instructions.sh --show      shows which functions they are in
#
# The paths are in benches/instructions.rs. A count is what callgrind reports for 2N
# messages less what it reports for N, so it includes neither start nor set-up.
#
# When it fails: if the change is worth its cost, run the script with --update and
# commit the file with the change. If not, compare the output of --show with and
# without the change. Another compiler makes another program: then the script only
# warns; run it with --update.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MESSAGES=100000
TOLERANCE=10 # per cent
RECORD=$ROOT/benches/instructions.txt

case "$*" in
    '' | --update | --show) ;;
    *) die "usage: scripts/instructions.sh [--update | --show]" ;;
esac
command -v cargo >/dev/null || die "cargo was not found; https://rustup.rs installs it"
need valgrind valgrind
work_dir
cd "$ROOT"

# Debug information changes no instruction, but it makes cargo build everything again.
if [ "$*" = --show ]; then
    export CARGO_PROFILE_BENCH_STRIP=false CARGO_PROFILE_BENCH_DEBUG=line-tables-only
fi
program=$(cargo bench --quiet --locked --bench instructions --no-run --message-format json |
    sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p') || die "cargo bench failed"
compiler=$(rustc --version)

# `rep movsb` would count one instruction for every byte it copies. This makes the C
# library copy as on a processor that lacks a fast one.
export GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000

# instructions PATH MESSAGES: prints how many instructions a run executes.
instructions() {
    LIMIT=120 limited valgrind --tool=callgrind --callgrind-out-file="$WORK/callgrind.out" \
        "$program" "$1" "$2" 2>"$WORK/valgrind.log" ||
        die "valgrind: $(tail -n 1 "$WORK/valgrind.log")"
    sed -n 's/^summary: //p' "$WORK/callgrind.out"
}

# count PATH: sets COUNTED to the tenths of instructions per message.
count() {
    local once twice
    once=$(instructions "$1" "$MESSAGES")
    twice=$(instructions "$1" $((2 * MESSAGES)))
    COUNTED=$(((twice - once) * 10 / MESSAGES))
}

decimal() {
    printf '%d.%d' $(($1 / 10)) $(($1 % 10))
}

if [ "$*" = --update ]; then
    {
        echo "# Instructions per message of 64 B, written by scripts/instructions.sh --update"
        echo "compiler: $compiler"
        for path in read write; do
            count "$path"
            echo "$path: $(decimal "$COUNTED")"
        done
    } >"$WORK/record"
    cp "$WORK/record" "$RECORD"
    cat "$RECORD"
    finish >/dev/null
fi

if [ "$*" = --show ]; then
    for path in read write; do
        instructions "$path" "$MESSAGES" >"$WORK/total"
        printf '%s, %d messages, with the set-up (instructions::main):\n' "$path" "$MESSAGES"
        callgrind_annotate --threshold=90 --show-percs=no "$WORK/callgrind.out" | sed -n '/file:function/,/^$/p'
    done
    finish >/dev/null
fi

recorded() {
    sed -n "s/^$1: //p" "$RECORD"
}

for path in read write; do
    count "$path"
    before=$(recorded "$path")
    [[ $before =~ ^[0-9]+\.[0-9]$ ]] || die "$RECORD says nothing of \"$path\"; --update writes it"
    what="$path: $(decimal "$COUNTED") instructions per message, $before recorded"
    if [ "$COUNTED" -le $((${before/./} * (100 + TOLERANCE) / 100)) ]; then
        case_ok "$what"
    elif [ "$compiler" != "$(recorded compiler)" ]; then
        case_ok "$what (over $TOLERANCE % more, but with another compiler; --update records it)"
    else
        case_failed "$what" "over $TOLERANCE % more; what to do is said at the top of ${BASH_SOURCE[0]}"
    fi
done
finish
