"""Leave-document-out evidence of several indexes: what the rest of all of them says at sampled positions.

The same positions, and the same counts, as of one index over all documents: so the same fits. Contexts are asked in
batches of one length, and what is left out is left out of the sums; see `estimators.held_out_evidence`.
"""

from __future__ import annotations

import numpy as np

from corpus_index.core.chains import TOTAL, count_gathered
from corpus_index.estimators.held_out_evidence import Evidence, draw_units, leave_documents_out, originals
from corpus_index.sharded.sharded_index import ShardedIndex

_BATCH = 1 << 12  # positions
_POSITIONS, _WALKED = 200_000, 6_000_000


@leave_documents_out.register
def _(
    index: ShardedIndex, max_order: int, *, positions: int = _POSITIONS, walked: int = _WALKED, seed: int = 0
) -> Evidence:
    """The evidence of all shards together; O(occurrences of all nodes of the chains) time."""
    rng = np.random.default_rng(seed)
    documents, copies = originals(index)
    drawn, begins, offsets, by_blocks = draw_units(index, rng, walked, documents, copies)
    del drawn
    size = int(offsets[-1])
    chosen = np.sort(rng.choice(size, min(positions, size), replace=False))
    units = np.searchsorted(offsets, chosen, side="right") - 1
    places = begins[units] + chosen - offsets[units]
    known = places - index.doc_starts[index.document_of(places)] + 1
    labels = index.array("tokens")[places].astype(np.int64)
    stretches = begins, begins + np.diff(offsets)
    parts: list[_Part] = []
    lengths = np.minimum(known - 1, max_order)
    # a context that is shorter than the bound begins with the start of its document
    for length in np.unique(lengths).tolist():
        asked = np.flatnonzero(lengths == length)
        for first in range(0, asked.size, _BATCH):
            which = asked[first : first + _BATCH]
            parts.append(_Part(index, which, places[which], units[which], labels[which], stretches, length, max_order))
    return _joined(parts, known, by_blocks, copies)


class _Part:
    """The evidence of some positions whose contexts are equally long."""

    def __init__(
        self,
        index: ShardedIndex,
        which: np.ndarray,
        places: np.ndarray,
        units: np.ndarray,
        labels: np.ndarray,
        stretches: tuple[np.ndarray, np.ndarray],
        length: int,
        max_order: int,
    ) -> None:
        self.which = which
        rows = index.array("tokens")[places[:, None] - np.arange(length, 0, -1)].astype(np.int64)
        used, numbers = np.unique(units, return_inverse=True)
        gathered = index.gathered(
            rows,
            max_order=max_order,
            starts_document=length < max_order,
            left=True,
            only_last=True,
            stored=index.row_store(True).keeps_pairs,
        )
        chains = count_gathered(
            gathered,
            labels,
            index.num_symbols,
            "document",
            (numbers.reshape(-1), stretches[0][used], stretches[1][used]),
            np.zeros(labels.size, np.bool_),
            left=True,
        )
        roots = np.zeros(chains.depths.size, np.bool_)
        roots[chains.offsets[1:] - 1] = True
        self.root_raw, self.root_left = chains.occurrences[roots], chains.lefts[roots]
        self.sizes = np.diff(chains.offsets) - 1
        self.orders, self.shallower = chains.depths[~roots], chains.shallower[~roots]
        self.raw, self.left = chains.occurrences[~roots], chains.lefts[~roots]
        assert (self.raw[:, TOTAL] > 0).all()


def _joined(parts: list[_Part], known: np.ndarray, by_blocks: bool, copies: int) -> Evidence:
    """The parts in the order of the positions."""
    size = known.size
    sizes = np.zeros(size, np.int64)
    roots = np.zeros((2, size, 5), np.int64)
    for part in parts:
        sizes[part.which] = part.sizes
        roots[0, part.which], roots[1, part.which] = part.root_raw, part.root_left
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
    orders, shallower = (np.zeros(int(offsets[-1]), np.int64) for _ in range(2))
    raw, left = (np.zeros((int(offsets[-1]), 5), np.int64) for _ in range(2))
    for part in parts:
        ends = np.append(0, np.cumsum(part.sizes))
        to = np.arange(int(ends[-1])) + np.repeat(offsets[part.which] - ends[:-1], part.sizes)
        orders[to], shallower[to], raw[to], left[to] = part.orders, part.shallower, part.raw, part.left
    deepest = np.zeros(orders.size, np.bool_)
    deepest[offsets[:-1][sizes > 0]] = True
    whole = orders == np.repeat(known, sizes)
    left[whole] = raw[whole]
    return Evidence(offsets, orders, shallower, raw, left, deepest, whole, roots[0], roots[1], by_blocks, copies)
