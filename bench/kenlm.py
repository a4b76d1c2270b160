"""KenLM's `query` and our scorer in turns: every token of the same texts, one core.

Either's speed moves by a third within minutes on a shared machine, so each turn gives a ratio of two runs that lie next
to each other, and what is told is the median of the turns with their range. Answers are compared first.

    LMPLZ=PATH/TO/lmplz python -m bench.kenlm --corpus FOLDER [--size 10M] [--turns 11] [--out FILE]

prints a table; --out writes the turns as JSON. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import build_index, make_estimator

from bench import corpora, machine
from bench.teacher.peers import KENLM_ORDER, KenLM, as_kenlm_says, lines
from bench.teacher.questions import ended, make_quick, texts

_PASSES = 3  # over the rows in a turn: `query` reads its file anew each time, which is subtracted
_CLOSE = 1e-5  # of log10: both tables hold float32


def in_turns(ours: Callable[[], float], theirs: Callable[[], float], turns: int) -> list[tuple[float, float]]:
    """Seconds of both, one after the other, so many times; a turn before them isn't told."""
    return [(ours(), theirs()) for _ in range(turns + 1)][1:]


def summary(tokens: int, seconds: list[tuple[float, float]]) -> dict[str, Any]:
    """Tokens a second of both, and the ratio of ours to theirs: medians, and the range of the ratio."""
    ours, theirs = (tokens / np.array(column) for column in zip(*seconds, strict=True))
    ratios = ours / theirs
    return {
        "tokens": tokens,
        "ours_per_s": float(np.median(ours)),
        "query_per_s": float(np.median(theirs)),
        "ratio": float(np.median(ratios)),
        "ratio_low": float(ratios.min()),
        "ratio_high": float(ratios.max()),
        "turns_s": [[round(one, 4) for one in pair] for pair in seconds],
    }


def measure(corpus: corpora.Corpus, folder: Path, work: Path, *, turns: int, rows: int, length: int) -> dict[str, Any]:
    """Both on the rows of each text; answers that differ end it."""
    peer = KenLM()
    peer.build(corpus, work, 1)
    model = work / "probing", corpus
    told = {}
    with build_index(
        corpus.tokens,
        work / "index",
        doc_starts=corpus.doc_starts,
        vocab_size=corpus.vocab_size,
        end_of_document=corpus.vocab_size - 1,
    ) as index:
        fitted = make_estimator("modified-kneser-ney", KENLM_ORDER - 1, convention="kenlm").fit(index)
        scorer = index.scorer(fitted)
        for name, asked in texts(corpus, folder, num=rows, length=length).items():
            few = asked.tokens[:32]
            actual = as_kenlm_says(index, scorer.probabilities(few)[:, 1:], few[:, 1:]).reshape(-1)
            differs = float(np.abs(actual - peer.log10(model, few)).max())
            if differs > _CLOSE:
                sys.exit(f"{name}: answers differ by {differs:.1e} in log10")
            whole = np.tile(asked.tokens, (_PASSES, 1))
            text = lines(whole).encode()

            def ours(whole: np.ndarray = whole) -> float:
                begin = time.perf_counter()
                scorer.probabilities(whole)
                return time.perf_counter() - begin

            def theirs(text: bytes = text) -> float:
                return peer.seconds(model, text)[0]

            told[name] = {"differs_log10": differs, **summary(whole.size, in_turns(ours, theirs, turns))}
    return told


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=os.environ.get("CORPUS_TEACHER_BENCH_CORPUS"))
    parser.add_argument("--size", default="10M")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--quick", action="store_true", help="a made-up corpus: to see that all works")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if missing := KenLM().missing():
        parser.error(missing)
    if options.corpus is None and not options.quick:
        parser.error("name a folder with --corpus (bench/README.md), or try --quick")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    described = machine.describe()
    with tempfile.TemporaryDirectory() as name:
        work, folder = Path(name), options.corpus
        if options.quick:
            folder = work / "quick"
            make_quick(folder)
        size = corpora.sizes_in(folder)[0] if options.quick else options.size
        corpus = ended(corpora.load(folder, size, work), work)
        asked = {"turns": 2, "rows": 8, "length": 128} if options.quick else {
            "turns": options.turns, "rows": options.rows, "length": 1024,
        }  # fmt: skip
        told = measure(corpus, folder, work, **asked)
    print(
        "| text | scorer, M tokens/s | `query`, M tokens/s | ratio, median (range of the turns) |\n|---|---:|---:|---:|"
    )
    for name, row in told.items():
        print(
            f"| {name} | {row['ours_per_s'] / 1e6:.2f} | {row['query_per_s'] / 1e6:.2f} | "
            f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}) |"
        )
    if options.out is not None:
        found = {"machine": described, "size": size, "texts": told}
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
