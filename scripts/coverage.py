"""Prints the table of `scripts/fuzz.sh --coverage`: lines of each file of src/ that the inputs of each target reach.

Standard input is what `llvm-cov export -summary-only` says of all targets. The arguments are the folder with a file
TARGET.json for each, and the files of the targets.
"""

import json
import pathlib
import sys

# Paths are shown from here.
SOURCE = pathlib.Path(__file__).resolve().parents[1] / "src"


def lines(report):
    files = json.loads(report)["data"][0]["files"]
    return {str(pathlib.Path(each["filename"]).relative_to(SOURCE)): each["summary"]["lines"] for each in files}


folder = pathlib.Path(sys.argv[1])
targets = [pathlib.Path(path).stem for path in sys.argv[2:]]
every = lines(sys.stdin.read())
of = {target: lines((folder / f"{target}.json").read_text()) for target in targets}

print(f"{'file':28}" + "".join(f"{target:>11}" for target in targets) + f"{'all':>6}{'lines':>7}{'missed':>8}")
for name, all_of_it in sorted(every.items()):
    count, covered = all_of_it["count"], all_of_it["covered"]
    share = lambda part: f"{100 * part // count}" if part else "-"
    cells = "".join(f"{share(of[target].get(name, {}).get('covered', 0)):>11}" for target in targets)
    print(f"{name:28}{cells}{share(covered):>6}{count:7}{count - covered:8}")
