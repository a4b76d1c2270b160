"""What counts alone reach on the held-out tokens of the studies: the losses that every student is compared with.

    python studies/yardsticks.py RUN          # a folder of `study run` on the index of 2.58 million tokens

writes studies/results/yardsticks.json. Each held-out document is one row, its first token is not predicted, and nothing
is left out: held-out text is not in the index.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from corpus_index import CorpusIndex, make_estimator

OUT = Path(__file__).parent / "results" / "yardsticks.json"


def nats_per_token(index: CorpusIndex, estimator: object, tokens: np.ndarray, starts: np.ndarray) -> float:
    """The mean loss of an estimator on whole documents."""
    total, counted = 0.0, 0
    for begin, end in pairwise(starts.tolist()):
        document = tokens[begin:end].astype(np.int64)[None]
        found = index.next_probabilities(document[:, :-1], document[:, 1:], estimator=estimator, starts_document=True)
        total -= float(np.log(np.asarray(found, dtype=np.float64)).sum())
        counted += document.shape[1] - 1
    return total / counted


def main(run: str) -> None:
    """Measure, print and write."""
    (data,) = Path(run, "data").iterdir()
    tokens, starts = np.load(data / "in.npy"), np.load(data / "in.starts.npy")
    made = {"tokens_in_index": 0, "documents": len(starts) - 1, "tokens": int(starts[-1]) - len(starts) + 1}
    with CorpusIndex.open(data / "index-train") as index:
        made["tokens_in_index"] = index.num_tokens
        nats = {
            f"witten-bell {order}": nats_per_token(
                index, make_estimator("witten-bell", order).fit(index), tokens, starts
            )
            for order in range(6)
        }
        nats["modified-kneser-ney 5"] = nats_per_token(
            index, make_estimator("modified-kneser-ney", 5).fit(index), tokens, starts
        )
    for name, value in nats.items():
        sys.stdout.write(f"{name:24} {value:.3f}\n")
    OUT.write_text(json.dumps({**made, "nats": nats}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
