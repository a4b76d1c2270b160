"""Hashes of the engine's answers over many sets of options: equal before and after a change that must not be seen.

    python bench/answers.py --out before.json        # at one commit (set PYTHONPATH to its index/ folder)
    python bench/answers.py --compare before.json    # at another: names every set whose answer differs, exits 1

All 13 estimators, each way of leaving out, several bounds, flat, mixed, sampled, drawn and measured, beside matches,
continuations, explanations, near-duplicates and an ARPA file, on a small corpus that is generated from a seed, with
heavy contexts, copied passages and empty documents. A hash is of the dtype, shape and bytes of every array of an
answer. Public names only, so that old commits run it too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import corpus_index
import numpy as np
from corpus_index import ESTIMATORS, CorpusIndex, build_index

LEAVE_OUT = (None, "self", "document")
BOUNDS = (None, 3, 1, 2, 5, 0)
ROWS, LENGTH, VOCAB, END = 8, 40, 90, 89


def corpus(seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and document starts: Zipf words with repeated phrases, documents that copy others, empty ones."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, VOCAB - 9)
    words = np.arange(weights.size)
    phrases = [rng.choice(words, rng.integers(3, 12), p=weights / weights.sum()) for _ in range(60)]
    documents: list[np.ndarray] = []
    for number in range(90):
        if number % 17 == 5:
            documents.append(np.empty(0, np.int64))
        elif number % 13 == 7:
            documents.append(documents[number // 2])
        else:
            parts = [
                phrases[int(rng.integers(len(phrases)))]
                if rng.random() < 0.5
                else rng.choice(words, 6, p=weights / weights.sum())
                for _ in range(int(rng.integers(1, 30)))
            ]
            documents.append(np.append(np.concatenate(parts), [END] if number % 3 else []).astype(np.int64))
    starts = np.append(0, np.cumsum([document.size for document in documents]))
    return np.concatenate(documents), starts


def update(digest: Any, answer: Any) -> None:
    """Feed an answer to a digest: arrays by their bytes, everything else by its repr."""
    if isinstance(answer, np.ndarray):
        digest.update(f"{answer.dtype.str}{answer.shape}".encode())
        digest.update(np.ascontiguousarray(answer).tobytes())
    elif isinstance(answer, (tuple, list)):
        digest.update(f"({len(answer)}".encode())
        for part in answer:
            update(digest, part)
    else:
        digest.update(repr(answer).encode())


def sets(index: CorpusIndex, tokens: np.ndarray, starts: np.ndarray) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every set of options: its name, and what to call."""
    rng = np.random.default_rng(1)
    places = np.sort(rng.choice(tokens.size - LENGTH - 1, ROWS, replace=False))
    rows = np.stack([tokens[place : place + LENGTH] for place in places])
    labels = np.stack([tokens[place + 1 : place + LENGTH + 1] for place in places])
    new = rng.integers(0, VOCAB, (4, LENGTH))
    new_labels = rng.integers(-1, VOCAB, (4, LENGTH))
    begins = np.isin(places, starts)
    flat: Any = index.smoothed_targets
    for order in BOUNDS:
        yield f"match {order}", lambda order=order: index.match(rows, max_order=order, starts_document=begins)
        yield f"continuations {order}", lambda order=order: index.next_tokens_batch(new, max_order=order, min_count=2)
    yield "count", lambda: [index.count(row[:n]) for row in rows for n in (0, 1, 2, 4)]
    yield "positions", lambda: [index.positions(row[:2]) for row in rows]
    yield "document_of", lambda: index.document_of(places)
    for name, (at, leave_out) in itertools.product(ESTIMATORS, enumerate(LEAVE_OUT)):
        order = BOUNDS[(at + ESTIMATORS.index(name)) % len(BOUNDS)]
        estimator = index.fitted(name, order)
        what = f"{name} {order} {leave_out}"
        options: dict[str, Any] = {"estimator": estimator, "leave_out": leave_out, "starts_document": begins}
        if leave_out == "document":
            options["positions"] = places
        yield f"flat {what}", lambda o=options: flat(rows, labels, **o)
        yield f"flat 5 {what}", lambda o=options: flat(rows, labels, top_k=5, top_p=0.9, **o)
        yield f"flat whole {what}", lambda o=options: flat(rows, labels, top_k=VOCAB, shortlist=None, **o)
        yield f"mixed {what}", lambda o=options: index.mixed_targets(rows, labels, **o)
        yield f"sampled {what}", lambda o=options: index.sampled_targets(rows, labels, draws=7, seed=3, **o)
        yield f"probabilities {what}", lambda o=options: index.next_probabilities(rows, labels, **o)
        if leave_out is None:
            yield f"new {what}", lambda e=estimator: flat(new, estimator=e)
            yield (
                f"new probabilities {what}",
                lambda e=estimator: index.next_probabilities(new, new_labels, estimator=e),
            )
            yield f"explain {what}", lambda e=estimator: _explained(index, rows[0], e)
            yield f"measure {what}", lambda e=estimator: corpus_index.measure(index, rows, estimator=e)
            yield f"base {what}", lambda e=estimator: index.base_distribution(e)
            yield f"fit {what}", lambda e=estimator: (e.name, e.max_order, e.discounts, e.strengths, e.ratios, e.facts)
            if not estimator.excludes:
                yield f"draw {what}", lambda e=estimator: _drawn(index, rows, e)
    for leave_out in LEAVE_OUT:
        options = {"leave_out": leave_out, "positions": places}
        yield f"scores {leave_out}", lambda o=options: index.backoff_scores(rows, labels, max_order=4, **o)
    yield (
        "cut draws",
        lambda: corpus_index.draw_from(
            index.smoothed_targets(new, top_k=32),
            corpus_index.sorted_base(index.base_distribution(), 1.5),
            np.random.default_rng(5),
            top_k=20,
            top_p=0.9,
        ),
    )
    yield "near-duplicates", lambda: corpus_index.near_duplicates(index, (4, 16, 64), top_length=16)
    for order in (1, 4):
        yield f"scorer {order}", lambda order=order: index.scorer("kneser-ney", order).probabilities(new)
    yield "arpa", lambda: _arpa(index)
    yield "recall", lambda: corpus_index.fit_recall(index, "witten-bell", 3).weights
    yield "row table", lambda: tuple(np.asarray(part) for part in index.row_table("kneser-ney"))


def _explained(index: CorpusIndex, row: np.ndarray, estimator: Any) -> Any:
    answer = index.explain(row, estimator=estimator)
    return answer.token_ids, answer.probs, answer.contributions, [repr(order) for order in answer.orders]


def _drawn(index: CorpusIndex, rows: np.ndarray, estimator: Any) -> Any:
    return corpus_index.draw_tokens(index, rows, np.random.default_rng(2), estimator=estimator)


def _arpa(index: CorpusIndex) -> bytes:
    out = io.BytesIO()
    corpus_index.write_arpa(index, corpus_index.make_estimator("modified-kneser-ney", 2, convention="kenlm"), out)
    return out.getvalue()


def hashes() -> dict[str, str]:
    """The hash of every set, by name."""
    tokens, starts = corpus()
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(
            tokens, Path(folder) / "index", doc_starts=starts, vocab_size=VOCAB, metadata={"end_of_document": END}
        )
        for name, ask in sets(index, tokens, starts):
            digest = hashlib.sha256()
            update(digest, ask())
            answers[name] = digest.hexdigest()[:20]
    return answers


def main() -> int:
    """Write the hashes, or compare them with written ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the hashes here")
    parser.add_argument("--compare", type=Path, help="compare with the hashes in this file")
    asked = parser.parse_args()
    found = hashes()
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    different = []
    if asked.compare:
        before = json.loads(asked.compare.read_text(encoding="utf-8"))
        different = [name for name in before if before[name] != found.get(name)]
        for name in different:
            print("differs:", name)
    print(json.dumps({"sets": len(found), "different": len(different), "engine": corpus_index.__file__}))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
