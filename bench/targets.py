"""Offline targets: bytes a token and what they lose, of every format against the exact target; and pointers' speed.

`python -m bench.targets INDEX --out bench/results/targets.json` prints both tables and, as its last line, one line of
JSON. The teacher is Witten–Bell with at most 5 context symbols, the position's own occurrence left out, whole rows.
Every format is read back from what it would store. Lost is, in nats, KL(stored ‖ exact) and KL(exact ‖ stored), which
is infinite where a format forgets tokens; and the bias: the total variation between what is read back on average and
the exact target. Random sampling has noise but no bias.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from corpus_index import CorpusIndex

from bench.pointers import make_pointers, match_positions

OPTIONS: dict[str, Any] = {"estimator": "witten-bell", "max_order": 5, "leave_out": "self"}
CHUNK = 256  # positions whose dense targets are held at a time


class Exact(NamedTuple):
    """One position's exact target and the sums over V that no format changes."""

    probs: np.ndarray
    logs: np.ndarray
    top: np.ndarray  # the 256 most likely tokens, best first
    self_sum: float  # Σ p log p
    on_base: float  # Σ p log base
    of_base: float  # Σ base log p


class Base(NamedTuple):
    """The base distribution, its logarithms, and Σ base log base."""

    probs: np.ndarray
    logs: np.ndarray
    self_sum: float


class Stored(NamedTuple):
    """What is read back: explicit tokens, the mass on the base, and bytes; of_draws: unbiased, so no bias to count."""

    ids: np.ndarray
    probs: np.ndarray
    rest: float
    size_bytes: float
    of_draws: bool = False


Format = Callable[[Exact, np.random.Generator], Stored]


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16 (to nearest, ties to even), as float64."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def dense(exact: Exact, rng: np.random.Generator) -> Stored:
    """All log-probabilities in bfloat16, normalised when read."""
    probs = np.exp(bfloat16(exact.logs))
    return Stored(np.arange(probs.size), probs / probs.sum(), 0.0, 2 * probs.size)


def finished(ids: np.ndarray, probs: np.ndarray, exact_sum: float, on_base: bool, size_bytes: float) -> Stored:
    """Explicit tokens made a distribution: the rest, 2 bytes more, on the base, or the tokens scaled up."""
    if on_base:
        rest = float(np.float16(max(1.0 - exact_sum, 1e-7)))
        total = probs.sum() + rest
        return Stored(ids, probs / total, rest / total, size_bytes + 2)
    return Stored(ids, probs / probs.sum(), 0.0, size_bytes)


def top(k: int, on_base: bool) -> Format:
    """The k largest: an id in 16 bits, a probability in float16."""

    def stored(exact: Exact, rng: np.random.Generator) -> Stored:
        ids = exact.top[:k]
        kept = exact.probs[ids]
        return finished(ids, kept.astype(np.float16).astype(np.float64), float(kept.sum()), on_base, 4 * k)

    return stored


def megatron(k: int) -> Format:
    """The k largest: a log-probability in 2 bytes (bfloat16 here), an id in 2 + 1; scaled up when read."""

    def stored(exact: Exact, rng: np.random.Generator) -> Stored:
        ids = exact.top[:k]
        return finished(ids, np.exp(bfloat16(exact.logs[ids])), float(exact.probs[ids].sum()), False, 5 * k)

    return stored


def distillkit(k: int, kept: int, terms: int, on_base: bool) -> Format:
    """The k largest, best first: packed ids, `kept` log-probabilities in bfloat16, a curve of float32 terms for others.

    The curve is fitted by least squares to the log-probabilities by rank: powers of the rank and its square root.
    """
    x = np.linspace(0.0, 1.0, k - kept)
    curves = np.stack([x**power for power in (0, 1, 0.5, 2, 3, 4)[:terms]], axis=1)
    fit = np.linalg.pinv(curves)

    def stored(exact: Exact, rng: np.random.Generator) -> Stored:
        ids = exact.top[:k]
        logs = exact.logs[ids]
        weights = (fit @ logs[kept:]).astype(np.float32)
        logs = np.concatenate([bfloat16(logs[:kept]), curves @ weights])
        probs = np.exp(np.minimum(logs, 0.0))
        bits = int(np.ceil(np.log2(exact.probs.size))) * k
        return finished(ids, probs, float(exact.probs[ids].sum()), on_base, bits / 8 + 2 * kept + 4 * terms)

    return stored


def drawn(count: int) -> Format:
    """Tokens drawn from the target, with how often: 3 bytes a distinct one (Anshumann et al. 2025)."""

    def stored(exact: Exact, rng: np.random.Generator) -> Stored:
        heap = np.cumsum(exact.probs)
        picks = np.searchsorted(heap, rng.random(count) * heap[-1], side="right")
        ids, times = np.unique(np.minimum(picks, heap.size - 1), return_counts=True)
        return Stored(ids, times / count, 0.0, 3 * ids.size, of_draws=True)

    return stored


FORMATS: dict[str, Format] = {
    "dense bf16": dense,
    **{f"top-{k}, scaled up": top(k, on_base=False) for k in (8, 64, 256)},
    **{f"top-{k}, rest on the base": top(k, on_base=True) for k in (8, 64, 256)},
    **{f"random sampling, {count} draws": drawn(count) for count in (12, 50)},
    "DistillKit-like, k = 50, 1 kept, 3 terms": distillkit(50, 1, 3, on_base=False),
    "DistillKit-like, k = 128, 16 kept, 6 terms": distillkit(128, 16, 6, on_base=False),
    "DistillKit-like, k = 128, rest on the base": distillkit(128, 16, 6, on_base=True),
    **{f"Megatron-like, k = {k}": megatron(k) for k in (16, 64, 100)},
}


def losses(exact: Exact, base: Base, stored: Stored) -> tuple[float, float, float]:
    """KL(stored ‖ exact), KL(exact ‖ stored) and the bias; of sparse + rest · base, in O(V) for the bias only."""
    ids, rest = stored.ids, stored.rest
    p, of_base = exact.probs[ids], base.probs[ids]
    q = stored.probs + rest * of_base
    q = np.where(p < 1e-9, p, q)  # next to nothing, in float32 sometimes less: the label's, where nothing else has it
    seen = q > 0
    backward = float((q[seen] * (np.log(q[seen]) - exact.logs[ids][seen])).sum())
    forward = np.inf
    if rest > 0:
        outside = base.self_sum - float((of_base * base.logs[ids]).sum())
        mass = 1.0 - float(of_base.sum())
        crossed = exact.of_base - float((of_base * exact.logs[ids]).sum())
        backward += rest * (np.log(rest) * mass + outside - crossed)
    if seen.all() and (rest > 0 or ids.size == exact.probs.size):
        left = 1.0 - float(p.sum())
        forward = float((p * (exact.logs[ids] - np.log(q))).sum())
        if rest > 0:
            forward += exact.self_sum - float((p * exact.logs[ids]).sum()) - np.log(rest) * left
            forward -= exact.on_base - float((p * base.logs[ids]).sum())
    bias = 0.0
    if not stored.of_draws:
        apart = np.abs(exact.probs - rest * base.probs)
        bias = (float(apart.sum()) - float(apart[ids].sum()) + float(np.abs(p - q).sum())) / 2
    return backward, forward, bias


def compare(index: CorpusIndex, num_positions: int, seed: int) -> list[dict[str, Any]]:
    """The table of formats: bytes a token and what is lost, means over positions of windows of 256 tokens."""
    rng = np.random.default_rng(seed)
    totals: dict[str, list[tuple[float, ...]]] = {name: [] for name in [*FORMATS, "flat, top_k = 64 (ours)"]}
    for begin in windows(index, num_positions // CHUNK, CHUNK, rng):
        places = begin + np.arange(CHUNK)
        ids, labels = (np.array(index.tokens[at], np.int64) for at in (places, places + 1))
        whole = index.smoothed_targets(ids, labels, top_k=index.vocab_size, shortlist=None, **OPTIONS)
        flat = index.smoothed_targets(ids, labels, top_k=64, **OPTIONS)
        least = index.mixed_targets(ids, labels, **OPTIONS).rest.astype(np.float64)
        probs = whole.base.astype(np.float64)
        probs /= probs.sum()
        base = Base(probs, np.log(probs), float((probs * np.log(probs)).sum()))
        for q in range(CHUNK):
            exact = exact_of(whole, q, least[q], base)
            for name, make in FORMATS.items():
                stored = make(exact, rng)
                totals[name].append((stored.size_bytes, *losses(exact, base, stored)))
            part = slice(flat.offsets[q], flat.offsets[q + 1])
            pairs = flat.probs[part].astype(np.float64)
            rest = max(float(flat.rest[q]), least[q])
            total = pairs.sum() + rest  # 1 but for float32
            stored = Stored(flat.token_ids[part], pairs / total, rest / total, 6 * pairs.size + 4)
            totals["flat, top_k = 64 (ours)"].append((stored.size_bytes, *losses(exact, base, stored)))
    rows = []
    for name, values in totals.items():
        size, backward, forward, bias = np.array(values).mean(axis=0).tolist()
        rows.append({"format": name, "bytes": size, "kl_stored_exact": backward})
        rows[-1] |= {"kl_exact_stored": forward if np.isfinite(forward) else None, "bias": bias}
    nothing = {"kl_stored_exact": 0.0, "kl_exact_stored": 0.0, "bias": 0.0}
    return [*rows, {"format": "pointer", "bytes": 4, **nothing}, {"format": "asking the index", "bytes": 0, **nothing}]


def exact_of(targets: Any, q: int, least: float, base: Base) -> Exact:
    """One position's exact target over V; least: its mass on the base, which float32 rounds to 0 where it is tiny."""
    part = slice(targets.offsets[q], targets.offsets[q + 1])
    probs = max(float(targets.rest[q]), least) * base.probs
    probs[targets.token_ids[part]] += targets.probs[part]
    np.maximum(probs, 1e-30, out=probs)  # float32 sums may be a hair below 0 at the label
    probs /= probs.sum()
    logs = np.log(probs)
    best = np.argpartition(probs, probs.size - 256)[-256:]
    best = best[np.argsort(-probs[best], kind="stable")]
    sums = (float(probs @ logs), float(probs @ base.logs), float(base.probs @ logs))
    return Exact(probs, logs, best, *sums)


def windows(index: CorpusIndex, count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Where windows begin that lie inside of one document with the token after them; documents drawn by length."""
    starts, sizes = index.doc_starts[:-1], np.diff(index.doc_starts)
    room = np.maximum(sizes - length, 0)
    documents = rng.choice(room.size, count, p=room / room.sum())
    return starts[documents] + rng.integers(0, room[documents])


def check_pointers(index: CorpusIndex, ranks: np.ndarray, rng: np.random.Generator) -> None:
    """Void the run unless pointers give what whole documents, matched from their starts, give."""
    sizes = np.diff(index.doc_starts)
    for document in rng.choice(np.flatnonzero(sizes > 1), 20):
        places = np.arange(index.doc_starts[document] + 1, index.doc_starts[document + 1])
        ids = np.array(index.tokens[places - 1], np.int64)
        for max_order in (0, 1, 5, 300, None):
            asked = index.match_nodes(ids, max_order=max_order, starts_document=True)
            read = match_positions(index, ranks, places[None], max_order)
            same = all(np.array_equal(a, b) for a, b in zip((*asked[0], asked[1]), (*read[0], read[1]), strict=True))
            if not same:
                raise RuntimeError(f"pointers and document {document} disagree at max_order {max_order}: a void run")


def speed(index: CorpusIndex, repeats: int, seed: int, rows: int = 64, length: int = 1024) -> dict[str, Any]:
    """Seconds of making, reading and using pointers beside asking, in turns on the same windows; medians."""
    rng = np.random.default_rng(seed)
    begin = time.perf_counter()
    ranks = make_pointers(index)
    made_s = time.perf_counter() - begin
    check_pointers(index, ranks, rng)
    answer: dict[str, Any] = {"made_positions_per_s": index.num_tokens / made_s}
    questions: dict[str, tuple[Any, ...]] = {f"nodes, max_order {bound}": (None, bound, None) for bound in (5, 8, None)}
    for name, bound in (("witten-bell", 5), ("modified-kneser-ney", 4)):
        questions |= {f"flat, {name} {bound}, leave_out {leave}": (name, bound, leave) for leave in (None, "self")}
    questions["flat, witten-bell 5, leave_out document"] = ("witten-bell", 5, "document")
    for question, (name, bound, leave) in questions.items():
        seconds: list[list[float]] = []
        for turn in range(repeats + 1):
            begins = windows(index, rows, length, rng)
            times = [0.0, 0.0]
            for way in (turn % 2, 1 - turn % 2, turn % 2, 1 - turn % 2):  # both see warm pages; the last counts
                times[way] = _asked(index, ranks if way else None, begins, length, name, bound, leave)
            seconds.append(times)
        asked, read = np.median(seconds[1:], axis=0).tolist()
        ratio = float(np.median([a / b for a, b in seconds[1:]]))
        answer[question] = {"asked": rows * length / asked, "read": rows * length / read, "ratio": ratio}
    return answer


def _asked(
    index: CorpusIndex,
    ranks: np.ndarray | None,
    begins: np.ndarray,
    length: int,
    estimator: str | None,
    max_order: int | None,
    leave_out: str | None,
) -> float:
    """Seconds that one batch takes; with ranks its matches, and the ranks of whole documents, are read, not asked."""
    places = begins[:, None] + np.arange(length)
    ids, labels = (np.array(index.tokens[at], np.int64) for at in (places, places + 1))
    reader = CorpusReader(index, ranks, places + 1) if ranks is not None else None
    begin = time.perf_counter()
    try:
        if reader is not None:
            reader.attach()
        if estimator is None:
            index.match_nodes(ids, max_order=max_order)
        else:
            positions = begins if leave_out == "document" else None
            options = {"estimator": estimator, "max_order": max_order, "leave_out": leave_out, "positions": positions}
            index.smoothed_targets(ids, labels if leave_out else None, **options)
        return time.perf_counter() - begin
    finally:
        if reader is not None:
            reader.detach()


class CorpusReader:
    """Puts reading in the place of an index's matching, for one batch."""

    def __init__(self, index: CorpusIndex, ranks: np.ndarray, places: np.ndarray) -> None:
        self.index, self.ranks, self.places = index, ranks, places

    def attach(self) -> None:
        """From here on the index reads."""
        vars(self.index)["match_nodes"] = self._match_nodes
        vars(self.index)["document_ranks"] = self._document_ranks

    def detach(self) -> None:
        """The index asks again."""
        for name in ("match_nodes", "document_ranks"):
            del vars(self.index)[name]

    def _match_nodes(self, ids: np.ndarray, *, max_order: int | None = None, **options: Any) -> Any:
        return match_positions(self.index, self.ranks, self.places, max_order)

    def _document_ranks(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts, stops = self.index.doc_starts[numbers], self.index.doc_starts[numbers + 1]
        parts = [self.ranks[a:e] for a, e in zip(starts, stops, strict=True)]
        return np.concatenate([[0], np.cumsum(stops - starts)]), np.concatenate(parts).astype(np.int64)


def table(rows: list[dict[str, Any]]) -> str:
    """The formats as Markdown."""
    lines = [
        "| format | B/token | KL(stored ‖ exact) | KL(exact ‖ stored) | bias |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        forward = "∞" if row["kl_exact_stored"] is None else f"{row['kl_exact_stored']:.2g}"
        lines.append(
            f"| {row['format']} | {row['bytes']:,.4g} | {row['kl_stored_exact']:.2g} | {forward} | {row['bias']:.2g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Options → tables and JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.targets", description=__doc__)
    parser.add_argument("index", type=Path, help="the folder of an index with at most 65,536 tokens in its vocabulary")
    parser.add_argument("--positions", type=int, default=20_480, help="of the table of formats; 0: leave it out")
    parser.add_argument("--repeats", type=int, default=7, help="of each timing; 0: leave them out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="add the answers to this JSON file, by size of the index")
    options = parser.parse_args()
    answer: dict[str, Any] = {}
    with CorpusIndex.open(options.index) as index:
        answer["num_tokens"], answer["vocab_size"] = index.num_tokens, index.vocab_size
        if options.repeats:
            answer["speed"] = speed(index, options.repeats, options.seed)
            for question, figures in answer["speed"].items():
                print(question, figures)
        if options.positions:
            answer["positions"] = options.positions // CHUNK * CHUNK
            answer["formats"] = compare(index, options.positions, options.seed)
            print(table(answer["formats"]))
    if options.out is not None:
        known = json.loads(options.out.read_text()) if options.out.exists() else {}
        known[f"{answer['num_tokens']:,} tokens"] = answer
        options.out.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
