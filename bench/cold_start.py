"""How long the first answer takes while no kernel is compiled, and what it compiles.

Four first calls, each in a process of its own with an empty kernel cache: `index build`, `index query`, `index query -e
auto`, `CorpusTeacher(path)(batch)`; then each once more with what the first one left in the cache. The difference is
what compiling costs.

    python -m bench.cold_start [--only NAME] [--top 12] [--shared]

prints a table for people, the most expensive kernels of this process below it (other processes compile beside it), and
one line of JSON for programs. --shared: the four share one cache, one after the other, as on a user's first day.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

CASES = ("build", "query", "auto", "teacher")
_SOURCES = ("asyncio", "json", "email")  # of the standard library: some 200 thousand tokens
_VOCABULARY = 2048


def _text() -> list[str]:
    """The files of the corpus."""
    return [str(Path(os.__file__).parent / name) for name in _SOURCES]


def _command(case: str, index: Path) -> list[str]:
    """The arguments of corpus-teacher for a case."""
    if case == "build":
        return ["index", "build", *_text(), "--out", str(index), "--tokenizer", f"train:{_VOCABULARY}"]
    query = ["index", "query", str(index), "import os"]
    return query if case == "query" else [*query, "-e", "auto", "--max-order", "5"]


def _run_case(case: str, index: Path) -> None:
    """What a user runs, in this process."""
    if case == "teacher":
        import torch

        from corpus_teacher import CorpusTeacher

        teacher = CorpusTeacher(index)
        teacher(torch.from_numpy(teacher.index.tokens[:2048].astype("int64")).view(8, 256))
        return
    from corpus_teacher.cli.main import main

    sys.argv = ["corpus-teacher", *_command(case, index)]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


class _Compilations:
    """CPU seconds of each kernel's compilation in this process, those that it compiles on the way left out."""

    def __init__(self) -> None:
        from numba.core import event

        self.seconds: dict[str, float] = defaultdict(float)
        self.times: dict[str, int] = defaultdict(int)
        self._open: list[tuple[str, float, list[float]]] = []
        outer = self

        class Listener(event.Listener):
            def on_start(self, event: Any) -> None:
                name = event.data["dispatcher"].py_func.__qualname__
                module = event.data["dispatcher"].py_func.__module__.rsplit(".", 1)[-1]
                outer._open.append((f"{module}.{name}", time.process_time(), [0.0]))

            def on_end(self, event: Any) -> None:
                name, begin, nested = outer._open.pop()
                took = time.process_time() - begin
                outer.seconds[name] += took - nested[0]
                outer.times[name] += 1
                if outer._open:
                    outer._open[-1][2][0] += took

        event.register("numba:compile", Listener())


def _child(case: str, index: Path, answer: Path) -> None:
    """Run a case and write what it took."""
    begin = time.perf_counter()
    compiled = _Compilations()
    _run_case(case, index)
    wall = time.perf_counter() - begin
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    answer.write_text(
        json.dumps(
            {
                "wall_s": wall,
                "cpu_s": sum(part.ru_utime + part.ru_stime for part in used),
                "functions": sum(compiled.times.values()),
                "kernels": [(name, seconds, compiled.times[name]) for name, seconds in compiled.seconds.items()],
            }
        )
    )


def _measure(case: str, index: Path, cache: Path, folder: Path) -> dict[str, Any]:
    answer = folder / "answer.json"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "bench.cold_start", "--child", case, str(index), str(answer)]
    begin = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(answer.read_text())
    found["wall_s"] = time.perf_counter() - begin
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--top", type=int, default=12)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child[0], Path(options.child[1]), Path(options.child[2]))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = folder / "index"
        if options.only not in (None, "build"):
            _measure("build", index, folder / "cache-of-build", folder)
        print(f"{'case':8} {'first_s':>8} {'cpu_s':>8} {'again_s':>8} {'functions':>9}")
        for case in CASES if options.only is None else (options.only,):
            cache = folder / ("cache" if options.shared else f"cache-{case}")
            where = folder / "index-again" if case == "build" and index.exists() else index
            first = _measure(case, where, cache, folder)
            if case == "build":
                where = folder / "index-twice"
            again = _measure(case, where, cache, folder)
            print(
                f"{case:8} {first['wall_s']:8.2f} {first['cpu_s']:8.2f} {again['wall_s']:8.2f} {first['functions']:9d}"
            )
            for kernel, seconds, times in sorted(first["kernels"], key=lambda row: -row[1])[: options.top]:
                print(f"    {seconds:6.2f} s  {times} × {kernel}")
            rows.append(
                {
                    "case": case,
                    "again_s": again["wall_s"],
                    **{key: first[key] for key in ("wall_s", "cpu_s", "functions")},
                }
            )
    print(json.dumps({"cold_start": rows}))


if __name__ == "__main__":
    main()
