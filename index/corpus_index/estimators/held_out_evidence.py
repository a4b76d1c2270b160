"""Leave-document-out evidence: what the rest of an index says at sampled positions, for estimators to be fitted on.

Leave-self-out would promise too much: a document repeats itself. So a position's whole document is taken out of every
count, exactly, and the fit sees text as it will see unseen documents. Documents that mostly copy others, such as a
second edition, give no evidence: what they are copied from would stay, and long contexts would seem to know more than
they do of new text. Where a corpus has few documents, blocks of positions stand in for them: that is only right as far
as text that lies apart differs as much as documents do.
"""

from __future__ import annotations

from functools import singledispatch
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from corpus_index._kernels import chains
from corpus_index._kernels import evidence as kernel
from corpus_index._kernels import left_out as gone
from corpus_index._kernels.arrays import read_only
from corpus_index._kernels.jit import compile_beside
from corpus_index.core.duplicates import copied_shares
from corpus_index.core.matching import Matcher

_POSITIONS = 200_000
_WALKED = 6_000_000  # tokens of the documents that the positions come from, unless one document is longer
_FEW_DOCUMENTS = 16
_PASSAGE, _MOST_COPIED = 50, 0.05  # a document with a larger share of positions after that many copied tokens is a copy
_BLOCKS = 64  # of a corpus of few documents
_ROOM = 1 << 17  # nodes at a time


class Evidence(NamedTuple):
    """Counts at P sampled positions without their own documents; E nodes of their backoff chains in all.

    Attributes
    ----------
    offsets : ndarray of shape (P + 1,), int64
        Position p's nodes are offsets[p] : offsets[p + 1] of the next arrays, the deepest first, the root left out.
    orders, shallower : ndarrays of shape (E,), int64
        A node stands for the orders from its own down to shallower + 1.
    raw, left : ndarrays of shape (E, 5), int64
        Count of the label, sum of all counts, and how many are 1, 2, 3 and more: of occurrences, and of distinct left
        extensions (occurrences where the context begins with its document's start).
    deepest : ndarray of shape (E,), bool
        Whether it is the longest match.
    whole : ndarray of shape (E,), bool
        Whether the context begins with its document's start.
    root_raw, root_left : ndarrays of shape (P, 5), int64
        The same five of the empty context.
    by_blocks : bool
        Whether blocks stood in for documents.
    copies : int
        Documents that gave no evidence, because they mostly copy others.
    """

    offsets: np.ndarray
    orders: np.ndarray
    shallower: np.ndarray
    raw: np.ndarray
    left: np.ndarray
    deepest: np.ndarray
    whole: np.ndarray
    root_raw: np.ndarray
    root_left: np.ndarray
    by_blocks: bool
    copies: int


def compile_ahead(index: Matcher) -> None:
    """Have the kernels of `leave_documents_out` compiled beside, before they are needed; shards have others."""
    if isinstance(index, Matcher):
        rest = [kernel.bounded_nodes, gone.lost_by_documents, chains.discount_gradient, chains.distinct_entries]
        compile_beside("fit", [kernel.evidence], rest, wide=index.num_symbols > 2**16)


@singledispatch
def leave_documents_out(
    index: Matcher, max_order: int, *, positions: int = _POSITIONS, walked: int = _WALKED, seed: int = 0
) -> Evidence:
    """The evidence at a seeded sample of an index's positions.

    Parameters
    ----------
    index : Matcher
    max_order : int
        Symbols of the longest context looked at, 0 … 254.
    positions : int
        How many, drawn evenly from the drawn documents.
    walked : int
        Documents are drawn until they hold that many tokens.
    seed : int

    Returns
    -------
    Evidence

    Notes
    -----
    O(N + walked + positions · (occurrences of the light contexts of a chain)); 10 bytes a token for a moment.
    """
    compile_ahead(index)
    rng = np.random.default_rng(seed)
    documents, copies = originals(index)
    drawn, begins, offsets, by_blocks = draw_units(index, rng, walked, documents, copies)
    _, ranks = index.document_ranks(drawn)
    chosen = np.sort(rng.choice(ranks.size, min(positions, ranks.size), replace=False))
    units = np.searchsorted(offsets, chosen, side="right") - 1
    own_ranks = ranks[chosen]
    corpus_positions = begins[units] + chosen - offsets[units]
    known = corpus_positions - index.doc_starts[index.document_of(corpus_positions)] + 1
    for lo, hi in pairwise(offsets):
        ranks[lo:hi].sort()
    labels = np.minimum(index.array("next_tokens")[own_ranks], index.num_symbols - 1).astype(np.int64)
    lo, hi, depths = (np.zeros(chosen.size, np.int64) for _ in range(3))
    arrays = index.kernel_arrays()
    if max_order > 0:
        kernel.bounded_nodes(arrays.text, arrays.nodes, own_ranks, known, max_order, lo, hi, depths)
    node_offsets, nodes = _nodes(index, lo, hi, depths, known, labels, units, offsets, ranks)
    raw = nodes[:, kernel.OWN : kernel.MORE + 1]
    left = nodes[:, kernel.OWN_LEFT : kernel.MORE_LEFT + 1]
    deepest = np.zeros(raw.shape[0], np.bool_)
    deepest[node_offsets[:-1][np.diff(node_offsets) > 0]] = True
    orders = nodes[:, kernel.DEPTH]
    whole = orders == np.repeat(known, np.diff(node_offsets))
    roots = _roots(index, labels, units, offsets, ranks)
    return Evidence(
        node_offsets, orders, nodes[:, kernel.SHALLOWER], raw, left, deepest, whole, *roots, by_blocks, copies
    )


def originals(index: Matcher) -> tuple[np.ndarray, int]:
    """The documents that hold a token and don't mostly copy others, ascending, and how many do; O(N).

    All of them where there are few, or nearly all are copies: then so will be what comes.
    """
    documents = np.flatnonzero(np.diff(index.doc_starts))
    if documents.size < _FEW_DOCUMENTS:
        return documents, 0
    found = documents[copied_shares(index, _PASSAGE)[documents] <= _MOST_COPIED]
    return (found, documents.size - found.size) if found.size >= _FEW_DOCUMENTS else (documents, 0)


def draw_units(
    index: Matcher, rng: np.random.Generator, walked: int, documents: np.ndarray, copies: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Drawn documents; these, or blocks of few: corpus positions of their begins, offsets; whether they are blocks."""
    by_blocks = documents.size + copies < _FEW_DOCUMENTS
    starts = index.doc_starts
    drawn = rng.permutation(documents)
    sizes = np.diff(starts)[drawn]
    drawn = np.sort(drawn[: int(np.searchsorted(np.cumsum(sizes), walked)) + 1])
    begins = starts[drawn].astype(np.int64)
    offsets = np.append(0, np.cumsum(starts[drawn + 1] - begins)).astype(np.int64)
    if by_blocks:
        block = max(1, index.num_tokens // _BLOCKS)
        cuts = [np.append(np.arange(lo, hi, block), hi) for lo, hi in pairwise(offsets.tolist())]
        begins = np.concatenate([begin + cut[:-1] - cut[0] for begin, cut in zip(begins, cuts, strict=True)])
        offsets = np.append(np.concatenate([cut[:-1] for cut in cuts]), offsets[-1])
    return drawn, begins, offsets, by_blocks


def _nodes(
    index: Matcher,
    lo: np.ndarray,
    hi: np.ndarray,
    depths: np.ndarray,
    known: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    unit_offsets: np.ndarray,
    ranks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The nodes of all chains: offsets (P + 1,), and a line each, (E, 12)."""
    following = np.minimum(index.array("next_tokens")[ranks], index.num_symbols - 1)
    heavy = index.heavy_nodes(True)
    num_rows = heavy.offsets.size - 1
    room = max(1 << 18, 8 * int(np.diff(unit_offsets).max(initial=0)))
    memo = kernel.Memo.empty(num_rows, room)
    sizes, lines, begin = [np.zeros(1, np.int64)], [np.empty((0, kernel.NUM_COLUMNS), np.int64)], 0
    out = np.empty((min(_ROOM, int(depths.sum())) + int(depths.max(initial=0)) + 1, kernel.NUM_COLUMNS), np.int64)
    offsets = np.zeros(lo.size + 1, np.int64)
    while begin < lo.size:
        done = int(
            kernel.evidence(
                index.kernel_arrays(),
                index.array("next_tokens"),
                index.array("endings"),
                heavy,
                index.thread_memory.scratch_of(index.num_symbols),
                memo,
                lo,
                hi,
                depths,
                known,
                labels,
                units,
                unit_offsets,
                ranks,
                following,
                begin,
                offsets,
                out,
            )
        )
        sizes.append(np.diff(offsets[: done - begin + 1]))
        lines.append(out[: offsets[done - begin]].copy())
        begin = done
    return np.cumsum(np.concatenate(sizes)), np.concatenate(lines)


def _roots(
    index: Matcher, labels: np.ndarray, units: np.ndarray, offsets: np.ndarray, ranks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The empty context's five numbers at each position: of occurrences, and of left extensions."""
    answers = []
    next_tokens = index.array("next_tokens")
    following = np.minimum(next_tokens[ranks], index.num_symbols - 1)
    token_offsets = np.zeros(offsets.size, np.int64)
    tokens, lost = np.empty(ranks.size, np.int64), np.empty(ranks.size, np.int64)
    scratch = index.thread_memory.scratch_of(index.num_symbols)
    gone.lost_by_documents(
        index.kernel_arrays(),
        next_tokens,
        index.array("endings"),
        index.heavy_nodes(True),
        True,
        offsets[:-1],
        offsets[1:],
        read_only(ranks.astype(np.uint32)),
        read_only(following),
        scratch,
        token_offsets,
        tokens,
        lost,
    )
    for left, counts in ((False, index.symbol_counts), (True, index.left_counts)):
        whole, total = np.bincount(np.minimum(counts, 3), minlength=4)[1:], counts.sum()
        out = np.zeros((labels.size, 5), np.int64)
        for begin, end in pairwise([*np.flatnonzero(np.diff(units, prepend=-1)).tolist(), units.size]):
            unit = units[begin]  # the positions come unit by unit
            lo, hi = token_offsets[unit : unit + 2]
            held, less = tokens[lo:hi], lost[lo:hi]
            if not left:
                less = np.bincount(
                    np.searchsorted(held, following[offsets[unit] : offsets[unit + 1]]), minlength=held.size
                )
            before, after = counts[held], counts[held] - less
            classes = whole + np.bincount(np.minimum(after, 3), minlength=4)[1:]
            classes -= np.bincount(np.minimum(before, 3), minlength=4)[1:]
            at = np.minimum(np.searchsorted(held, labels[begin:end]), held.size - 1)
            out[begin:end, 0] = after[at]  # a position's label is one of its document's tokens
            out[begin:end, 1] = total - less.sum()
            out[begin:end, 2:] = classes
        answers.append(out)
    return answers[0], answers[1]
