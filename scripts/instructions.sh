#!/usr/bin/env bash
# How many instructions does a message cost? Unlike its time, that is the same on a
# busy machine, so that a check can depend on it.
#
#     scripts/instructions.sh             fails if a path costs over 10 % more than
#                                         benches/instructions.txt says
#     scripts/instructions.sh --update    writes what it counts into that file
#     scripts/instructions.sh --show      shows where the instructions are
#
# The paths are in benches/instructions.rs. Counted is what callgrind sees for 2N
# messages less what it sees for N: neither the start nor the set-up is in it.
#
# When it fails: if the change is worth what it costs, run it with --update and
# commit the file with the change. If not, compare what --show says with and without
# the change. Another compiler makes another program: then it only warns, and
# --update puts things right.

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

# Names and lines change no instruction, but everything would have to be built anew.
if [ "$*" = --show ]; then
    export CARGO_PROFILE_BENCH_STRIP=false CARGO_PROFILE_BENCH_DEBUG=line-tables-only
fi
program=$(cargo bench --quiet --locked --bench instructions --no-run --message-format json |
    sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p') || die "cargo bench failed"
compiler=$(rustc --version)

# `rep movsb` would count as an instruction for every byte it copies: the C library
# shall copy as it does where the processor is not good at it.
export GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000

# instructions PATH MESSAGES: all that a run executes.
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
