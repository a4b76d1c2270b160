"""What shards cost beside one index of the same documents: processor time a position, in turns, batch by batch.

    python -m bench.shards_beside_one ONE SHARDS --out bench/results/shards-beside-one.json

ONE and SHARDS are indexes of one corpus, the second in shards. Each batch is asked of both, the answers are compared,
and those of the first batches, in which rows of wide contexts are made, are not counted. One thread: set
OMP_NUM_THREADS and NUMBA_NUM_THREADS to 1. Some eight minutes for eight shards of 100 million tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import CorpusIndex, Estimator, open_index
from corpus_index.shard_changes import shards_of

from bench.machine import describe

BATCH, ROW, WARM, BATCHES = 64, 128, 110, 20
ESTIMATORS, MAX_ORDER = ("witten-bell", "modified-kneser-ney"), 5
LEAVE_OUTS = (None, "self", "document")


def measure(one: CorpusIndex, shards: CorpusIndex) -> list[dict[str, Any]]:
    """A row for each estimator, what is left out, and what is asked for."""
    rows = []
    for name in ESTIMATORS:
        estimators, fit_s = [], []
        for index in (one, shards):
            begin = time.process_time()
            estimators.append(index.fitted(name, MAX_ORDER))
            fit_s.append(time.process_time() - begin)
        for leave_out in LEAVE_OUTS:
            for asked in ("smoothed_targets", "next_probabilities"):
                times = timed(asked, (one, shards), estimators, leave_out)
                rows.append({"asked": asked, "estimator": name, "leave_out": leave_out, "fit_s": fit_s, **times})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def timed(
    asked: str, indexes: tuple[CorpusIndex, CorpusIndex], estimators: list[Estimator], leave_out: str | None
) -> dict[str, float]:
    """Medians of the batches that count, microseconds a position, and their ratio."""
    tokens = np.asarray(indexes[0].tokens)
    spent: list[list[float]] = [[], []]
    for number in range(WARM + BATCHES):
        places = np.random.default_rng(number).integers(0, tokens.size - ROW - 1, BATCH)
        rows = tokens[places[:, None] + np.arange(ROW + 1)].astype(np.int64)
        answers = []
        for index, estimator, mine in zip(indexes, estimators, spent, strict=True):
            begin = time.process_time()
            found = getattr(index, asked)(
                rows[:, :-1], rows[:, 1:], estimator=estimator, leave_out=leave_out, positions=places
            )
            mine.append((time.process_time() - begin) / (BATCH * ROW) * 1e6)
            answers.append(np.asarray(found.match_len if asked == "smoothed_targets" else found))
        np.testing.assert_allclose(*answers, rtol=1e-9)
    medians = [statistics.median(mine[WARM:]) for mine in spent]
    return {"one_us": medians[0], "shards_us": medians[1], "times": medians[1] / medians[0]}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("one", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with open_index(arguments.one) as one, open_index(arguments.shards) as shards:
        result = {
            "bench": "shards_beside_one",
            "machine": describe(),
            "num_tokens": one.num_tokens,
            "shards": len(shards_of(shards)),
            "max_order": MAX_ORDER,
            "batch": [BATCH, ROW],
            "rows": measure(one, shards),
        }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
