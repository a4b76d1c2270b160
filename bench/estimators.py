"""What the estimators give on unseen text: cross-entropy, beside KenLM's 5-gram, with its interval over documents.

`python -m bench.estimators --corpus prose=DIR --corpus code=DIR --out bench/results/estimators.json` prints a table a
corpus and, as its last line, one line of JSON. Each folder is as `bench/README.md` describes it. Nothing is tuned on
the held-out text: every parameter comes from the index. Held-out documents that share long passages with the corpus are
dropped first, since near-duplicates tell who copies, not who predicts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from corpus_index import CorpusIndex, build_index, fit_recall

from bench.corpora import make_small, sizes_in
from bench.machine import describe

BASELINE = ("modified-kneser-ney", 4)
"""KenLM's 5-gram: `tests/index/test_kenlm.py` holds that they are the same."""

ESTIMATORS: tuple[tuple[str, int | None], ...] = (
    BASELINE,
    ("modified-kneser-ney", 8),
    ("witten-bell", 4),
    ("jelinek-mercer", None),
    ("pitman-yor", None),
    ("auto", 4),
    ("auto", 8),
    ("auto", None),
    ("modified-kneser-ney + recall", 4),
    ("auto + recall", None),
)
RECALL = " + recall"
PASSAGE = 50  # tokens of a shared passage
MOST_SHARED = 0.05  # of a document's tokens
ROW, CONTEXT = 512, 512  # tokens that a row predicts, and those before them that it knows
SAMPLES = 2000  # of documents, for the interval


class HeldOut(NamedTuple):
    """Documents that the index doesn't hold, as rows: ids and next ids (B, CONTEXT + ROW), −1: nothing is asked."""

    input_ids: np.ndarray
    next_ids: np.ndarray
    starts_document: np.ndarray
    documents: np.ndarray
    dropped: int
    dropped_tokens: int


def shared_part(index: CorpusIndex, document: np.ndarray) -> float:
    """The share of a document's tokens in passages of at least PASSAGE tokens that the index holds."""
    if document.size < PASSAGE:
        return 0.0
    ends = np.flatnonzero(index.match(document, max_order=PASSAGE).match_len[0] >= PASSAGE)
    edges = np.zeros(document.size + 1, np.int64)
    np.add.at(edges, ends - PASSAGE + 1, 1)
    np.add.at(edges, ends + 1, -1)
    return float((np.cumsum(edges)[:-1] > 0).mean())


def rows_of(index: CorpusIndex, tokens: np.ndarray, starts: np.ndarray, most_shared: float = MOST_SHARED) -> HeldOut:
    """The documents that share less than most_shared with the index."""
    rows: list[tuple[np.ndarray, np.ndarray, bool, int]] = []
    dropped = dropped_tokens = 0
    for number, (begin, end) in enumerate(pairwise(starts.tolist())):
        document = tokens[begin:end].astype(np.int64)
        if shared_part(index, document) >= most_shared:
            dropped, dropped_tokens = dropped + 1, dropped_tokens + document.size
            continue
        for first in range(0, document.size - 1, ROW):
            known = max(0, first - CONTEXT)
            last = min(document.size - 1, first + ROW)
            ids, following = np.zeros(CONTEXT + ROW, np.int64), np.full(CONTEXT + ROW, -1, np.int64)
            ids[: last - known] = document[known:last]
            following[first - known : last - known] = document[first + 1 : last + 1]
            rows.append((ids, following, known == 0, number))
    if not rows:
        raise SystemExit("every held-out document shares long passages with the corpus: nothing is left to predict.")
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return HeldOut(columns[0], columns[1], columns[2], columns[3], dropped, dropped_tokens)


def losses_of(p: np.ndarray, held_out: HeldOut) -> np.ndarray:
    """(nats, tokens) of each document, from the probabilities of the next ids: shape (documents that are left, 2)."""
    asked = held_out.next_ids >= 0
    nats = -np.log(np.where(asked, p.reshape(asked.shape), 1.0))
    _, document = np.unique(held_out.documents, return_inverse=True)
    return np.stack([np.bincount(document, nats.sum(axis=1)), np.bincount(document, asked.sum(axis=1))], axis=1)


def interval(losses: np.ndarray, baseline: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the relative difference to the baseline, over documents drawn anew with replacement."""
    drawn = np.random.default_rng(seed).integers(0, len(losses), (SAMPLES, len(losses)))
    ratios = losses[drawn, 0].sum(axis=1) / baseline[drawn, 0].sum(axis=1) - 1
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def compare(
    index: CorpusIndex, held_out: HeldOut, estimators: Sequence[tuple[str, int | None]]
) -> Iterator[dict[str, Any]]:
    """One row an estimator; the first of them is what the others are compared with."""
    baseline: np.ndarray | None = None
    for name, max_order in estimators:
        begin = time.perf_counter()
        ids = held_out.input_ids, held_out.next_ids
        if name.endswith(RECALL):
            recall = fit_recall(index, name.removesuffix(RECALL), max_order)
            fit_s, promised = time.perf_counter() - begin, recall.nats
            p = recall.next_probabilities(index, *ids, starts_document=held_out.starts_document)
        else:
            fitted = index.fitted(name, max_order)
            fit_s, promised = time.perf_counter() - begin, fitted.facts.get("nats")
            p = index.next_probabilities(*ids, estimator=fitted, starts_document=held_out.starts_document)
        losses = losses_of(p, held_out)
        baseline = losses if baseline is None else baseline
        nats = float(losses[:, 0].sum() / losses[:, 1].sum())
        yield {
            "estimator": name,
            "max_order": max_order,
            "nats": nats,
            "difference": float(losses[:, 0].sum() / baseline[:, 0].sum() - 1),
            "interval": interval(losses, baseline),
            "promised_nats": promised,
            "fit_s": fit_s,
        }


def run(corpora: dict[str, Path], sizes: Sequence[str], work: Path, most_shared: float) -> list[dict[str, Any]]:
    """The rows of all corpora, printed as they come."""
    rows = []
    for name, folder in corpora.items():
        for size in [size for size in sizes_in(folder) if not sizes or size in sizes]:
            index = _index(folder, size, work / f"{name}-{size}")
            for text in sorted(path.stem.removeprefix("heldout_") for path in folder.glob("heldout_*.u16")):
                tokens = np.fromfile(folder / f"heldout_{text}.u16", np.uint16)
                held_out = rows_of(index, tokens, np.load(folder / f"heldout_{text}.doc_starts.npy"), most_shared)
                facts = {
                    "corpus": name,
                    "size": size,
                    "index_tokens": index.num_tokens,
                    "text": text,
                    "positions": int((held_out.next_ids >= 0).sum()),
                    "documents": len(np.unique(held_out.documents)),
                    "dropped_documents": held_out.dropped,
                    "dropped_tokens": held_out.dropped_tokens,
                }
                print(
                    f"\n{name} {size} ({index.num_tokens:,} tokens), held out {text}: {facts['positions']:,} positions "
                    f"of {facts['documents']} documents; {held_out.dropped} dropped "
                    f"({held_out.dropped_tokens:,} tokens)\n"
                )
                print("| estimator | max_order | nats/token | against the first | 95 % | promised |")
                print("|---|---|---|---|---|---|")
                for row in compare(index, held_out, ESTIMATORS):
                    print(_line(row), flush=True)
                    rows.append(facts | row)
    return rows


def _line(row: dict[str, Any]) -> str:
    order = "none" if row["max_order"] is None else row["max_order"]
    low, high = row["interval"]
    promised = "–" if row["promised_nats"] is None else f"{row['promised_nats']:.4f}"
    return (
        f"| {row['estimator']} | {order} | {row['nats']:.4f} | {row['difference']:+.2%} | {low:+.2%} … {high:+.2%} | "
        f"{promised} |"
    )


def _index(folder: Path, size: str, path: Path) -> CorpusIndex:
    if not path.exists():
        tokens = np.memmap(folder / f"train_{size}.u16", np.uint16, "r")
        starts = np.load(folder / f"train_{size}.doc_starts.npy")
        highest = max(int(np.fromfile(other, np.uint16).max()) for other in folder.glob("heldout_*.u16"))
        vocab_size = max(int(tokens.max()), highest) + 1
        path.parent.mkdir(parents=True, exist_ok=True)
        build_index(tokens, path, doc_starts=starts, vocab_size=vocab_size)
    return CorpusIndex.open(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimators", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", action="append", default=[], metavar="NAME=DIR", help="may be repeated")
    parser.add_argument("--sizes", default="", help="which of the folders' sizes, with commas between (all)")
    parser.add_argument("--most-shared", type=float, default=MOST_SHARED, help="1.1 keeps near-duplicates")
    parser.add_argument("--work", type=Path, help="where indexes are kept")
    parser.add_argument("--out", type=Path, help="a file for the rows, as JSON")
    parser.add_argument("--quick", action="store_true", help="a small corpus of the standard library")
    chosen = parser.parse_args(arguments)
    corpora = dict(one.split("=", 1) for one in chosen.corpus)
    with tempfile.TemporaryDirectory() as temporary:
        work = chosen.work or Path(temporary)
        if chosen.quick:
            if not (work / "stdlib").exists():
                make_small(work / "stdlib", num_tokens=300_000)
            corpora["stdlib"] = work / "stdlib"
        if not corpora:
            parser.error("name a corpus (--corpus NAME=DIR), or give --quick")
        folders = {name: Path(folder) for name, folder in corpora.items()}
        rows = run(folders, [size for size in chosen.sizes.split(",") if size], work, chosen.most_shared)
    answer = {"machine": describe(), "rows": rows}
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    json.dump(answer, sys.stdout)
    print()


if __name__ == "__main__":
    main()
