"""`python -m bench.fuzz`: gives hostile input to every reader, and keeps each case that is neither read nor refused.

Prints a table for people, and last one line of JSON for programs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from bench.machine import describe


def main() -> int:
    """Fuzz; 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--readers", help="names, separated by commas; all by default")
    parser.add_argument("--cases", type=int, default=1_000, help="to each reader")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each reader, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="follow the coverage of the project's Python, by atheris")
    parser.add_argument("--corpus", type=Path, help="keep the cases that reached something new, of --guided")
    parser.add_argument("--keep", type=Path, help="write each case that was found into this folder")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.guided:
        import atheris

        kernels = Path(__file__).parents[1].glob("index/corpus_index/_kernels/*.py")  # which are compiled from bytecode
        left_out = [f"corpus_index._kernels.{path.stem}" for path in kernels]
        with atheris.instrument_imports(include=["corpus_teacher", "corpus_index"], exclude=left_out):
            from bench.trust.readers import READERS
    else:
        from bench.trust.readers import READERS
    from bench.trust.fuzzing import Outcome, fuzz

    names = given.readers.split(",") if given.readers else list(READERS)
    made: dict[str, Outcome] = {}
    print(f"{'reader':20s}{'cases':>11s}{'refused':>11s}{'finds':>7s}{'s':>8s}")
    for name in names:
        corpus = None if given.corpus is None else given.corpus / name
        outcome = fuzz(
            READERS[name], cases=given.cases, seconds=given.seconds, seed=given.seed, guided=given.guided, corpus=corpus
        )
        made[name] = outcome
        print(
            f"{name:20s}{outcome.cases:11,d}{outcome.refused:11,d}{len(outcome.finds):7d}{outcome.seconds:8.1f}",
            flush=True,
        )
        for find in outcome.finds.values():
            print(f"    {find.kind}: {find.what}", flush=True)
            if given.keep is not None:
                given.keep.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256(find.case).hexdigest()[:8]
                (given.keep / f"{name}.{digest}").write_bytes(find.case)
    line = json.dumps({"machine": describe(), "fuzzing": report(made, given)})
    if given.out is not None:
        given.out.write_text(line + "\n", encoding="utf-8")
    print(line)
    return int(any(outcome.finds for outcome in made.values()))


def report(made: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Counts in all and by reader, and what was found."""
    return {
        "seed": given.seed,
        "guided": given.guided,
        "cases": sum(one.cases for one in made.values()),
        "refused": sum(one.refused for one in made.values()),
        "finds": sum(len(one.finds) for one in made.values()),
        "seconds": round(sum(one.seconds for one in made.values()), 1),
        "readers": {
            name: {
                "cases": one.cases,
                "refused": one.refused,
                "finds": [f"{find.kind}: {find.what}" for find in one.finds.values()],
            }
            for name, one in made.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
