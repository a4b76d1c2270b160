"""`python -m bench.teacher`: see bench/README.md, or --help."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import corpora, machine
from bench.index.rows import Row, render
from bench.index.run import say
from bench.teacher.ours import OURS, TAIL_ESTIMATORS, Ours
from bench.teacher.peers import PEERS
from bench.teacher.questions import ended, make_quick, texts
from bench.teacher.run import SECTIONS, TITLES, Settings, TeacherRun


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    peers = tuple(peer.name for peer in PEERS)
    parser = argparse.ArgumentParser(
        prog="python -m bench.teacher", description="The teacher and its peers on the same tokens, in one run."
    )
    add = parser.add_argument
    add(
        "--corpus",
        type=Path,
        default=os.environ.get("CORPUS_TEACHER_BENCH_CORPUS"),
        help="folder of train_<SIZE>.u16 and heldout_1M.u16 (default: CORPUS_TEACHER_BENCH_CORPUS)",
    )
    add("--sizes", type=_names, help="which sizes of the folder, such as 10M,100M (default: all)")
    add("--only", type=_names, default=SECTIONS, help=f"which sections (default: {','.join(SECTIONS)})")
    add("--peers", type=_names, default=peers, help=f"which peers, or none (default: {','.join(peers)})")
    add("--layouts", type=_names, default=("full",), help=f"of ours (default: full; there are: {', '.join(OURS)})")
    add("--quick", action="store_true", help="a made-up corpus of 50,000 tokens: seconds, to see that all works")
    add("--runs", type=int, default=5, help="timed runs of a figure (default: 5)")
    add("--rows", type=int, default=64, help="windows of each text, of 1,024 tokens: few fit into caches (default: 64)")
    add("--budget", type=float, default=5.0, help="seconds a peer, or a tail, has for a figure (default: 5)")
    add("--out", type=Path, help="write the results here, {size} in the name replaced")
    add("--work", type=Path, help="folder for the indexes, kept for later runs (default: a temporary one, removed)")
    found = parser.parse_args(arguments)
    for given, known in ((found.only, SECTIONS), (found.peers, (*peers, "none")), (found.layouts, OURS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    if found.corpus is None and not found.quick:
        parser.error("name a folder with --corpus (bench/README.md), or try --quick")
    return found


def bench_size(
    size: str, folder: Path, work: Path, options: argparse.Namespace, described: dict[str, Any]
) -> list[Row]:
    """One size: measured, judged, written after every process."""
    quick = options.quick
    corpus = ended(corpora.load(folder, size, work), work)
    asked = texts(corpus, folder, num=8 if quick else options.rows, length=128 if quick else 1024)
    settings = Settings(
        sections=tuple(options.only),
        runs=1 if quick else options.runs,
        least_s=0.0 if quick else 0.3,
        budget_s=0.1 if quick else options.budget,
        sample=2 if quick else 12,
        tail_positions=20 if quick else 2_000,
        tail_estimators=1 if quick else len(TAIL_ESTIMATORS),
        quick=quick,
    )
    run = TeacherRun(corpus, asked, work, settings)
    say(f"{size}: {corpus.num_tokens:,} tokens, {corpus.num_documents:,} documents, V {corpus.vocab_size:,}")
    chosen = [peer for peer in PEERS if peer.name in options.peers]
    for contender in (*(OURS[layout] for layout in options.layouts), *chosen):
        for _ in run.run(contender):
            _write(options.out, size, described, run.rows)
    run.judge(chosen)
    _write(options.out, size, described, run.rows)
    return run.rows


def _write(out: Path | None, size: str, described: dict[str, Any], rows: list[Row]) -> None:
    if out is not None:
        path = out.with_name(out.name.format(size=size))
        content = {"machine": described, "rows": [asdict(row) for row in rows]}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the options say; the table on stdout, and one line of JSON at the end."""
    options = parse(arguments)
    described = machine.describe()
    if described["load_at_start"] > 0.5:
        say(f"the machine is busy (load {described['load_at_start']:.1f}): figures will be low")
    work = options.work or Path(tempfile.mkdtemp(prefix="corpus-teacher-bench-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        folder = options.corpus
        if options.quick:
            folder = work / "quick"
            make_quick(folder)
        rows: list[Row] = []
        for size in options.sizes or corpora.sizes_in(folder):
            rows += bench_size(size, folder, work, options, described)
    finally:
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)
    print(render(rows, Ours.name, TITLES))
    print()
    print(json.dumps({"machine": described, "rows": [asdict(row) for row in rows]}, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
