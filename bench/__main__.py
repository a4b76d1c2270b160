"""`python -m bench`: see bench/README.md, or --help."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench import corpora, machine
from bench.index.contenders import ALL, BY_NAME
from bench.index.earlier import EarlierRun, answers_folder
from bench.index.ours import Shards
from bench.index.rows import SECTIONS, Row, render
from bench.index.run import Settings, SizeRun, say

OURS = next(contender.name for contender in ALL if contender.is_ours)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse() -> argparse.Namespace:
    """The options."""
    peers = tuple(name for name in BY_NAME if name != OURS)
    usual = tuple(name for name in peers if name != Shards.name)
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Ours and the peers on the same tokens, in one run."
    )
    add = parser.add_argument
    add(
        "--corpus",
        type=Path,
        default=os.environ.get("CORPUS_TEACHER_BENCH_CORPUS"),
        help="folder of train_<SIZE>.u16 and heldout_1M.u16 (default: CORPUS_TEACHER_BENCH_CORPUS; "
        "without, a small corpus out of the standard library)",
    )
    add("--sizes", type=_names, help="which sizes of the folder, such as 10M,100M (default: all)")
    add("--only", type=_names, default=SECTIONS, help=f"which sections (default: {','.join(SECTIONS)})")
    add("--peers", type=_names, default=usual, help=f"which peers, or none (default: {','.join(usual)})")
    add("--no-ours", action="store_true", help="the peers only")
    add("--quick", action="store_true", help="the smallest size, short runs: minutes")
    add("--rows", type=int, help="rows of 1,024 tokens that are asked for (default: 512; --quick: 128)")
    add("--runs", type=int, default=5, help="timed runs of a query section (default: 5)")
    add("--build-runs", type=int, default=3, help="builds, where one takes under a minute (default: 3)")
    add("--budget", type=float, default=5.0, help="seconds a peer has for a section and slice (default: 5)")
    add("--peer-cores", type=_names, default=("1", "2"), help="cores of the peers' builds (default: 1,2)")
    add(
        "--limit", type=float, default=3600.0, help="seconds after which a contender's process is ended (default: 3600)"
    )
    add("--out", type=Path, help="write the result here, after every contender; its answers beside it")
    add("--reuse", type=Path, help="take the peers' rows and answers from the --out of an earlier run")
    add("--work", type=Path, help="folder for the indexes (default: a temporary one, removed)")
    arguments = parser.parse_args()
    for given, known in ((arguments.only, SECTIONS), (arguments.peers, (*peers, "none"))):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return arguments


class Result:
    """The rows so far, and where they are written."""

    def __init__(self, out: Path | None, earlier: EarlierRun) -> None:
        self.out = out
        # Written over its own --reuse, the file keeps what is not measured again yet, should the run be cut short.
        same = out is not None and earlier.path is not None and out.resolve() == earlier.path.resolve()
        self.kept = earlier.rows if same else []
        self.machine = machine.describe()
        self.rows: list[Row] = []

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}

    def write(self) -> None:
        """Replaces the file in one step."""
        if self.out is not None:
            partial = self.out.with_name(f"{self.out.name}.partial")
            measured = {(row.size, row.who) for row in self.rows}
            kept = [asdict(row) for row in self.kept if (row.size, row.who) not in measured]
            content = {"machine": self.machine, "rows": [*(asdict(row) for row in self.rows), *kept]}
            partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            partial.replace(self.out)


def bench_size(
    size: str, folder: Path, work: Path, arguments: argparse.Namespace, earlier: EarlierRun, result: Result
) -> None:
    """One size, appended to the result."""
    corpus = corpora.load(folder, size, work)
    num_rows = arguments.rows or (128 if arguments.quick else 512)
    slices = corpora.query_rows(corpus, folder, num_rows=num_rows, row_length=1024, seed=0)
    settings = Settings(
        sections=tuple(arguments.only),
        runs=min(arguments.runs, 3) if arguments.quick else arguments.runs,
        budget_s=min(arguments.budget, 1.5) if arguments.quick else arguments.budget,
        build_runs=1 if arguments.quick else arguments.build_runs,
        peer_cores=tuple(int(cores) for cores in arguments.peer_cores),
        limit_s=arguments.limit,
    )
    answers = answers_folder(arguments.out) if arguments.out else work / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    run = SizeRun(corpus, slices, work, answers, settings)
    say(f"{size}: {corpus.num_tokens:,} tokens, {corpus.num_documents:,} documents, V {corpus.vocab_size:,}")
    chosen = [c for c in ALL if (c.name == OURS and not arguments.no_ours) or c.name in arguments.peers]
    before = len(result.rows)
    for contender in chosen:
        path = run.answers_path(contender)
        taken = earlier.take(contender, run.fingerprint, settings.sections, path)
        if taken:
            say(f"{size} {contender.name}: {len(taken)} rows from {arguments.reuse}")
            run.rows += taken
        else:
            path.unlink(missing_ok=True)
            run.run(contender)
        result.rows[before:] = run.rows
        result.write()
    run.judge(chosen)
    result.rows[before:] = run.rows
    result.write()


def main() -> None:
    """Runs what the options say; the table on stdout, and one line of JSON at the end."""
    arguments = parse()
    earlier = EarlierRun(arguments.reuse)
    result = Result(arguments.out, earlier)
    if result.machine["load_at_start"] > 0.5:
        say(f"the machine is busy (load {result.machine['load_at_start']:.1f}): figures will be low")
    work = arguments.work or Path(tempfile.mkdtemp(prefix="corpus-teacher-bench-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        folder = arguments.corpus
        if folder is None:
            folder = work / "small"
            say("no --corpus: making a small one out of the standard library")
            corpora.make_small(folder)
        sizes = arguments.sizes or (corpora.sizes_in(folder)[:1] if arguments.quick else corpora.sizes_in(folder))
        if not sizes:
            raise SystemExit(f"{folder} holds no train_<SIZE>.u16: see bench/README.md for what --corpus names.")
        for size in sizes:
            bench_size(size, folder, work, arguments, earlier, result)
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)
    described = {key: value for key, value in result.machine.items() if key != "versions"}
    print("machine:", ", ".join(f"{key} {value}" for key, value in described.items()))
    print("versions:", ", ".join(f"{key} {value}" for key, value in result.machine["versions"].items()))
    print(render(result.rows, OURS))
    print()
    print(json.dumps(result.as_dict(), ensure_ascii=False))


if __name__ == "__main__":
    main()
