"""What leaving the document out costs beside leaving the position out, in CPU time, for documents of several lengths.

`python -m bench.leave_out INDEX… --out bench/results/leave-out.json` prints a table, and one line of JSON at the end.
Batches of windows of 1,024 tokens are drawn by length of document; both ways are asked in turns about the same batch.
Times are of the thread that asks, per position, medians over batches; the ratio is the median of the batches' ratios.
An index of one document asks for the whole of it to be left out.

`python -m bench.leave_out INDEX… --memory` tells instead what each of two processes holds for itself alone (private
dirty pages) more than before its first question without documents, in bytes per token of the corpus. Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import CorpusIndex, build_index, make_estimator
from corpus_index.estimators.estimator import Estimator
from corpus_index.targets.interpolated import mixed_targets, next_probabilities, smoothed_targets

from bench.machine import describe

LENGTH = 1024
QUESTIONS = {"next token": next_probabilities, "flat, 64": smoothed_targets, "mixed": mixed_targets}
ESTIMATORS = {
    "witten-bell 5": ("witten-bell", 5),
    "modified-kneser-ney 4": ("modified-kneser-ney", 4),
    "auto 5": ("auto", 5),
}


def batch(index: CorpusIndex, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where windows begin, their tokens, and the token after each; documents drawn by length."""
    rng = np.random.default_rng(seed)
    starts, room = index.doc_starts[:-1], np.maximum(np.diff(index.doc_starts) - LENGTH - 1, 0)
    documents = rng.choice(room.size, rows, p=room / room.sum())
    begins = starts[documents] + rng.integers(0, room[documents])
    places = begins[:, None] + np.arange(LENGTH)
    return begins, np.array(index.tokens[places], np.int64), np.array(index.tokens[places + 1], np.int64)


def fitted(index: CorpusIndex, name: str, order: int) -> Estimator:
    """An estimator of an index."""
    estimator = make_estimator(name, order)
    return estimator if estimator.is_fitted else estimator.fit(index)


def compare(
    index: CorpusIndex, estimator: Estimator, question: str, rows: int, batches: int, first_seed: int
) -> dict[str, Any]:
    """Microseconds a position with the position and with the document left out, and their ratio."""
    ask = QUESTIONS[question]
    times: list[list[float]] = []
    for turn in range(batches + 2):  # the first two aren't timed
        begins, ids, following = batch(index, rows, first_seed + turn)
        took = []
        for leave_out, positions in (("self", None), ("document", begins)):
            begin = time.thread_time()
            ask(index, ids, following, estimator=estimator, leave_out=leave_out, positions=positions)
            took.append((time.thread_time() - begin) / ids.size * 1e6)
        times.append(took)
    kept = np.array(times[2:])
    self_us, document_us = np.median(kept, axis=0).tolist()
    return {"self_us": self_us, "document_us": document_us, "ratio": float(np.median(kept[:, 1] / kept[:, 0]))}


def private_bytes() -> int:
    """Pages that this process alone holds and has written."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def _hold(path: Path, name: str, order: int, rows: int, batches: int, pipe: Connection) -> None:
    """Ask with the position left out, tell the private bytes, and with the document left out, and tell them again."""
    with tempfile.TemporaryDirectory() as folder, CorpusIndex.open(path) as index:
        tokens = np.random.default_rng(0).integers(0, 20, 6 * LENGTH).astype(np.uint16)
        starts = np.arange(0, tokens.size + 1, 2 * LENGTH)
        options = {"doc_starts": starts, "vocab_size": index.vocab_size, "workers": 1}
        with build_index(tokens, f"{folder}/small", **options) as small:  # so that all code is loaded
            _ask(small, fitted(small, name, order), 2, 1, "document")
        estimator = fitted(index, name, order)
        for leave_out in ("self", "document"):
            _ask(index, estimator, rows, batches, leave_out)
            pipe.send(private_bytes())
            pipe.recv()  # both processes are there until both have told


def _ask(index: CorpusIndex, estimator: Estimator, rows: int, batches: int, leave_out: str) -> None:
    for turn in range(batches):
        begins, ids, following = batch(index, rows, turn)
        positions = begins if leave_out == "document" else None
        next_probabilities(index, ids, following, estimator=estimator, leave_out=leave_out, positions=positions)


def held(path: Path, name: str, order: int, rows: int, batches: int) -> list[int]:
    """What two processes hold alone, after and less before they leave documents out: bytes each."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(2)]
    workers = [context.Process(target=_hold, args=(path, name, order, rows, batches, there)) for _, there in pairs]
    for worker in workers:
        worker.start()
    told: list[list[int]] = []
    for _ in range(2):
        told.append([here.recv() for here, _ in pairs])
        for here, _ in pairs:
            here.send(None)
    for worker in workers:
        worker.join()
    return [after - before for before, after in zip(*told, strict=True)]


def memory(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of --memory, printed as they come."""
    rows = []
    for path in arguments.indexes:
        with CorpusIndex.open(path) as index:
            num_tokens = index.num_tokens
            index.sorted_ranks()  # files that all processes share are made once
            index.lost_from()
        for name in arguments.estimators:
            alone = held(path, *ESTIMATORS[name], arguments.rows, arguments.batches)
            per_token = [one / num_tokens for one in alone]
            rows.append({"index": path.name, "tokens": num_tokens, "estimator": name, "private_bytes": alone})
            print(f"{path.name:>12} {name:>22} {max(alone) / 1e6:8.1f} MB {max(per_token):6.2f} B/token", flush=True)
    return rows


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("indexes", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--estimators", nargs="+", default=list(ESTIMATORS), choices=list(ESTIMATORS))
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS), choices=list(QUESTIONS))
    parser.add_argument("--memory", action="store_true", help="what processes hold alone, instead of times")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = memory(arguments) if arguments.memory else times(arguments)
    report = {"machine": describe(), "rows_of_a_batch": arguments.rows, "batches": arguments.batches, "rows": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


def times(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of the table, printed as they come."""
    rows = []
    for path in arguments.indexes:
        with CorpusIndex.open(path) as index:
            lengths = np.diff(index.doc_starts)
            typical = float((lengths.astype(np.float64) ** 2).sum() / lengths.sum())  # of the document of a token
            for name in arguments.estimators:
                estimator = fitted(index, *ESTIMATORS[name])
                for question in arguments.questions:
                    seed = len(rows) * (arguments.batches + 2)  # windows of their own: what was made for some is kept
                    found = compare(index, estimator, question, arguments.rows, arguments.batches, seed)
                    about = {"index": path.name, "tokens": index.num_tokens, "typical_document": round(typical)}
                    rows.append({**about, "estimator": name, "question": question, **found})
                    print(
                        f"{path.name:>12} {typical:>12,.0f} {name:>22} {question:>10} "
                        f"{found['self_us']:8.2f} {found['document_us']:8.2f} us {found['ratio']:6.2f} x",
                        flush=True,
                    )
    return rows


if __name__ == "__main__":
    main()
