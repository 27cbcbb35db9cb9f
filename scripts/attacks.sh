#!/usr/bin/env bash
# Attacks a server in each way that the table of SECURITY.md lists. Each row names a test; this runs the test and prints
# whether it holds, with the figures that the test has measured.
#
#     scripts/attacks.sh              all of them, which takes some minutes
#     scripts/attacks.sh TLS          those whose row contains this text
#     scripts/attacks.sh --list       only prints the tests: FILE::NAME, a tab, and the attack
#     scripts/attacks.sh --write      runs all, and writes the figures into the last column of the table
#
# Needs bash and cargo; redis-server and openssl for those that say so.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PAGE=$ROOT/SECURITY.md

# rows: FILE, test, attack, what holds, separated by tabs.
rows() {
    # shellcheck disable=SC2016 # these are no commands
    sed -nE 's#^\| (.+) \| (.+) \| `((tests|src)/[a-z_/]+\.rs)::([a-z0-9_]+)` \|.*\|$#\3\t\5\t\1\t\2#p' "$PAGE"
}

write='' only=''
case ${1:-} in
--list)
    rows | sed -E 's/^([^\t]*)\t([^\t]*)\t([^\t]*)\t.*$/\1::\2\t\3/'
    lib_ended=yes
    exit 0
    ;;
--write) write=yes ;;
-*) die "there is no option $1" ;;
*) only=${1:-} ;;
esac

need cargo cargo
work_dir
cd "$ROOT"

# run_test FILE NAME: runs exactly this test; sets WHY if it is not one that passes, and NOT_RUN if it cannot run here.
run_test() {
    local file=$1 name=$2 arguments=(--locked) path result
    WHY='' NOT_RUN=''
    case $file in
    tests/redis.rs)
        if ! command -v redis-server >/dev/null; then NOT_RUN='redis-server is not installed' && return; fi
        arguments+=(--features redis)
        ;;
    esac
    case $file in
    tests/*) arguments+=(--test "$(basename "$file" .rs)") ;;
    src/*)
        # The name of a test beside the code begins with its module.
        path=${file#src/}
        path=${path%.rs}
        case /$path/ in */tests/*) ;; *) path+=/tests ;; esac
        name=${path//\//::}::$name
        arguments+=(--lib)
        ;;
    esac
    if ! cargo test "${arguments[@]}" "$name" -- --exact --nocapture >"$WORK/out" 2>"$WORK/err"; then
        WHY="cargo test ${arguments[*]} $name failed: $(tail -n 20 "$WORK/err" | tr '\n' ' ')"
        return
    fi
    result=$(grep '^test result: ' "$WORK/out" || true)
    case $result in
    *' 1 passed; 0 failed; 0 ignored;'*) ;;
    *) WHY="there is no such test: ${result:-nothing ran}" ;;
    esac
    NOT_RUN=$(sed -n 's/^NOT RUN: //p' "$WORK/err")
}

not_run=0
while IFS=$'\t' read -r file name attack holds <&3; do
    case $attack$holds$file in *"$only"*) ;; *) continue ;; esac
    run_test "$file" "$name"
    figures=$(sed -n 's/^measured: //p' "$WORK/err" | awk '!seen[$0]++ { printf "%s%s", between, $0; between = "; " }')
    if [ -n "$WHY" ]; then
        case_failed "$attack" "$WHY"
    elif [ -n "$NOT_RUN" ]; then
        not_run=$((not_run + 1))
        printf 'NOT RUN - %s: %s\n' "$attack" "$NOT_RUN"
    else
        case_ok "$attack: ${figures:-held}"
        printf '%s\t%s\n' "$file::$name" "$figures" >>"$WORK/figures"
    fi
done 3< <(rows)

if [ $((lib_passed + lib_failed + not_run)) -eq 0 ]; then die "no row of SECURITY.md contains \"$only\""; fi
if [ "$not_run" -gt 0 ]; then printf '%d not run\n' "$not_run"; fi

if [ -n "$write" ]; then
    # shellcheck disable=SC2016 # awk's own
    awk -F'\t' '
        NR == FNR { figures[$1] = $2; next }
        match($0, /`(tests|src)\/[a-z_\/]+\.rs::[a-z0-9_]+` \| /) {
            test = substr($0, RSTART + 1, RLENGTH - 5)
            if (figures[test] != "") $0 = substr($0, 1, RSTART + RLENGTH - 1) figures[test] " |"
        }
        { print }
    ' "$WORK/figures" "$PAGE" >"$WORK/page"
    cp "$WORK/page" "$PAGE"
fi
finish
