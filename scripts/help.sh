#!/usr/bin/env bash
# Writes the help of each command into docs/cli.md, in place of what is there. Run it
# after you change a help text; a test compares the two.
#
# Needs bash, awk, the coreutils, and cargo to build framelet (FRAMELET=… names a
# program that is already built).

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PAGE=$ROOT/docs/cli.md

framelet_binary
work_dir
export FRAMELET

# The block that follows the heading "### `framelet ARGUMENTS`" is the output of that command.
awk '
    /^### `framelet .*--help`$/ { arguments = $0; gsub(/^### `framelet |`$/, "", arguments) }
    /^```text$/ && arguments {
        print
        command = "\"$FRAMELET\" " arguments
        while ((command | getline line) > 0) print line
        if (close(command)) exit 1
        replacing = 1
    }
    /^```$/ { replacing = 0; arguments = "" }
    !replacing
' "$PAGE" >"$WORK/page" || die "cannot write the help of framelet into $PAGE"
cat "$WORK/page" >"$PAGE"
finish >/dev/null
