"""`python -m bench.trust`: flips bits of indexes that are opened unchecked, and counts what becomes of it.

Prints a table for people, and last one line of JSON for programs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.machine import describe
from bench.trust.flips import OUTCOMES, campaign


def main() -> int:
    """Run the campaign; 1 where something crashed, hung, or ended in an exception that isn't ours."""
    parser = argparse.ArgumentParser(prog="python -m bench.trust", description=__doc__)
    parser.add_argument("--flips", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deep", action="store_true", help="fits, recall and ARPA besides: ten times as long")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {"machine": describe(), "flips": campaign(given.flips, given.seed, deep=given.deep)}
    flips = found["flips"]
    print(f"{'file':26s}" + "".join(f"{kind:>11s}" for kind in OUTCOMES))
    for file, counts in {**flips["by_file"], "all": flips}.items():
        print(f"{file:26s}" + "".join(f"{counts[kind]:11,d}" for kind in OUTCOMES))
    line = json.dumps(found)
    if given.out is not None:
        given.out.write_text(line + "\n", encoding="utf-8")
    print(line)
    return int(any(flips[kind] for kind in ("crash", "hang", "exception")))


if __name__ == "__main__":
    sys.exit(main())
