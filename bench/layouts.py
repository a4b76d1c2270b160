"""The layouts of an index beside one another: bytes, conversion both ways, matches and targets.

    python -m bench.layouts --corpus FOLDER --size 10M [--out bench/results/layouts-10M.json]

The corpus is a folder as bench/README.md describes it. One thread; times are of the processor, the best of some turns,
so that a machine which is busy with other work lengthens them little. Conversions are judged: there and back gives the
same fingerprint, which stands for every byte, and both layouts give the same probabilities.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import CorpusIndex, build_index, convert_index

_ROWS, _LENGTH = 8, 1_024
_TURNS = 5


def seconds_of(function: Callable[[], Any]) -> float:
    """Processor time of a call."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def questions(index: CorpusIndex, rows: np.ndarray, leave_out: str | None) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    ids, following = rows[:, :-1], rows[:, 1:]
    options: dict[str, Any] = {"leave_out": leave_out}
    wb: dict[str, Any] = {"estimator": "witten-bell", "max_order": 5} | options
    kn: dict[str, Any] = {"estimator": "modified-kneser-ney", "max_order": 4} | options
    return {
        "match": lambda: index.match(ids),
        "probabilities witten-bell 5": lambda: index.next_probabilities(ids, following, **wb),
        "flat witten-bell 5": lambda: index.smoothed_targets(ids, following, **wb),
        "flat modified-kneser-ney 4": lambda: index.smoothed_targets(ids, following, **kn),
    }


def measure(tokens: np.ndarray, doc_starts: np.ndarray, held_out: np.ndarray, vocab_size: int) -> dict[str, Any]:
    """Both layouts of one corpus."""
    with tempfile.TemporaryDirectory() as folder:
        full, compact, back = (Path(folder) / name for name in ("full", "compact", "back"))
        options: dict[str, Any] = {"doc_starts": doc_starts, "vocab_size": vocab_size, "workers": 1}
        row: dict[str, Any] = {"num_tokens": int(tokens.size), "vocab_size": vocab_size}
        row["build_s"] = seconds_of(lambda: build_index(tokens, full, **options).close())
        row["to_compact_s"] = seconds_of(lambda: convert_index(full, "compact", out=compact, workers=1).close())
        row["to_full_s"] = seconds_of(lambda: convert_index(compact, "full", out=back, workers=1).close())
        places = np.random.default_rng(0).integers(0, max(1, tokens.size - _LENGTH - 1), _ROWS)
        inside = tokens[places[:, None] + np.arange(_LENGTH + 1)].astype(np.int64)
        outside = np.resize(held_out, (_ROWS, _LENGTH + 1)).astype(np.int64)
        answers = []
        with CorpusIndex.open(back) as same, CorpusIndex.open(full) as one:
            row["same_bytes_back"] = same.fingerprint == one.fingerprint
        for path in (full, compact):
            with CorpusIndex.open(path) as index:
                sizes = {name: size / index.num_tokens for name, size in index.size_bytes.items()}
                said: dict[str, Any] = {"bytes_per_token": sum(sizes.values()), "files": sizes, "us_per_position": {}}
                for name, rows, leave_out in (("held out", outside, None), ("corpus", inside, "self")):
                    asked = questions(index, rows, leave_out)
                    for question, ask in asked.items():
                        ask()
                        best = min(seconds_of(ask) for _ in range(_TURNS))
                        said["us_per_position"][f"{question}, {name}"] = 1e6 * best / (_ROWS * _LENGTH)
                    answers.append(asked["probabilities witten-bell 5"]())
                row[index.layout] = said
        row["same_probabilities"] = all(np.array_equal(answers[k], answers[k + 2]) for k in range(2))
    return row


def main() -> None:
    """Measure, print, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--size", default="10M")
    parser.add_argument("--vocab-size", type=int, default=50_257)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    tokens = np.fromfile(chosen.corpus / f"train_{chosen.size}.u16", np.uint16)
    starts = np.load(chosen.corpus / f"train_{chosen.size}.doc_starts.npy")
    row = measure(tokens, starts, np.fromfile(chosen.corpus / "heldout_1M.u16", np.uint16), chosen.vocab_size)
    written = json.dumps(row, indent=1)
    print(written)
    if chosen.out is not None:
        chosen.out.write_text(written + "\n")


if __name__ == "__main__":
    main()
