"""`python -m bench.fuzz`: gives hostile input to every reader, and keeps each case that is neither read nor refused.

Prints a table for people, and last one line of JSON for programs. With --add the cases are added to those that the file
of --out counts already, and it is written after each reader: a run that is stopped has lost nothing.
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
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of a processor, for each reader at most")
    parser.add_argument("--rounds", type=int, default=1, help="that often, with one seed after the other")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="follow the coverage of the project's Python, by atheris")
    parser.add_argument("--drawn", type=int, default=0, help="cases that hypothesis draws, besides, to each reader")
    parser.add_argument("--corpus", type=Path, help="keep the cases that reached something new, of --guided")
    parser.add_argument("--keep", type=Path, help="write each case that was found into this folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--add", action="store_true", help="to what the file of --out counts already")
    given = parser.parse_args()
    if given.add and given.out is None:
        parser.error("--add needs --out: the file that is added to")
    if given.guided:
        import atheris

        kernels = Path(__file__).parents[1].glob("index/corpus_index/_kernels/*.py")  # which are compiled from bytecode
        left_out = [f"corpus_index._kernels.{path.stem}" for path in kernels]
        with atheris.instrument_imports(include=["corpus_teacher", "corpus_index"], exclude=left_out):
            from bench.trust.readers import READERS
    else:
        from bench.trust.readers import READERS
    from bench.trust.fuzzing import Find, campaign
    from corpus_teacher.files import write_text

    def keep(name: str, find: Find) -> None:
        if given.keep is not None:
            given.keep.mkdir(parents=True, exist_ok=True)
            (given.keep / f"{name}.{hashlib.sha256(find.case).hexdigest()[:8]}").write_bytes(find.case)

    readers = [READERS[name] for name in given.readers.split(",")] if given.readers else list(READERS.values())
    options = {name: getattr(given, name) for name in ("cases", "seconds", "drawn", "guided", "corpus")}
    machine = describe()

    def told(found: dict[str, Any]) -> None:
        if given.out is not None:
            write_text(given.out, json.dumps({"machine": machine, "fuzzing": found}) + "\n")

    before = json.loads(given.out.read_text(encoding="utf-8"))["fuzzing"] if given.add and given.out.exists() else None
    finds = 0 if before is None else before["finds"]
    for number in range(given.rounds):
        before = campaign(readers, keep=keep, before=before, told=told, seed=given.seed + number, **options)
    print(json.dumps({"machine": machine, "fuzzing": before}))
    return int(before is not None and before["finds"] > finds)


if __name__ == "__main__":
    sys.exit(main())
