#!/usr/bin/env bash
# Checks what framelet is built from: licences, sources and duplicates by the rules of deny.toml, and known weaknesses of the
# versions in each lock file.
#
# Needs cargo-deny and cargo-audit (cargo install --locked cargo-deny cargo-audit), and git. ADVISORY_DB names a copy of RustSec's
# database of advisories; without it, git gets one. What cannot be checked is said as NOT RUN.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATABASE=https://github.com/RustSec/advisory-db

need cargo cargo
work_dir
cd "$ROOT"

not_run() {
    printf 'NOT RUN: %s, because %s\n' "$1" "$2"
}

# has TOOL: whether cargo has this command.
has() {
    cargo "$1" --version >/dev/null 2>&1
}

rules='licences, sources and duplicates'
if has deny; then
    check "$rules" cargo deny --all-features check licenses bans sources
else
    not_run "$rules" 'cargo-deny is not installed'
fi

# get_database: makes sure that ADVISORY_DB is a copy; sets WHY if it cannot.
get_database() {
    if [ -n "${ADVISORY_DB:-}" ]; then
        [ -d "$ADVISORY_DB/crates" ] || die "ADVISORY_DB=$ADVISORY_DB is no copy of $DATABASE"
        return
    fi
    ADVISORY_DB=$WORK/advisory-db
    if ! limited git clone --quiet --depth 1 "$DATABASE" "$ADVISORY_DB" 2>"$WORK/git"; then
        WHY="$DATABASE cannot be read: $(tail -n 1 "$WORK/git")"
        return 1
    fi
}

if ! has audit; then
    not_run 'known weaknesses' 'cargo-audit is not installed'
elif ! get_database; then
    not_run 'known weaknesses' "$WHY"
else
    printf 'advisories of %s\n' "$(git -C "$ADVISORY_DB" log -1 --format=%cs 2>/dev/null || echo 'an unknown date')"
    # Warnings are about crates that are unsound, not maintained, or withdrawn.
    while IFS= read -r lock; do
        check "known weaknesses in $lock" cargo audit --db "$ADVISORY_DB" --no-fetch --stale --deny warnings --file "$lock"
    done < <(find . -name target -prune -o -name Cargo.lock -printf '%P\n' | sort)
fi

finish
