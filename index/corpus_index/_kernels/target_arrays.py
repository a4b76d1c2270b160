"""The arrays that targets are made from and written to, as named tuples; see `mixed` for how."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from corpus_index._kernels.arrays import read_only

# columns of HeavyNodes.table
COLUMNS = 16  # a cache line
LO, HI, PARENT, PARENT_DEPTH, OWN_DEPTH, RAW_1, RAW_2, LEFT_1, LEFT_2, LEFT_TOTAL, LEVEL = range(11)
START, ENTRIES, BUCKETS, BUCKET_SHIFT = range(11, 15)
NO_PARENT = 2**32 - 1
NOWHERE = 2**32 - 1
WHOLE = 2  # a match that is all that is known of a context
SOLE_NODES = 4096  # wide contexts with one continuation whose runs are remembered; a power of two
GONE_COLUMNS = 16  # of GoneRows.totals: a cache line
FIRST, END = 8, 9  # of them: which of the document's ranks the row holds
BLOCK = 64  # positions whose labels are looked up together
LEVELS = 8  # rows of a chain that are looked up ahead
_SPARE = 128  # tokens that a damaged file may name twice: `small_nodes` doesn't look
BLOCK_BITS = 7  # a stored row is wider than such a block, so it holds the first rank of one


class EstimatorArrays(NamedTuple):
    """A rule and its parameters by order, the last one going on; left: orders below the top count left extensions."""

    rule: int
    discounts: np.ndarray
    extra: np.ndarray
    left: bool
    max_order: int


class HeavyNodes(NamedTuple):
    """The stored rows: ranges, ancestors and totals by row (`table`), where they are found, and their entries.

    narrowest: of each block of ranks the narrowest row that holds its first. buckets: see `look_up.fill_buckets`.
    """

    table: np.ndarray
    narrowest: np.ndarray
    buckets: np.ndarray
    bounds: np.ndarray
    directory: np.ndarray
    shift: int
    light: int
    deepest: int
    deepest_chain: int
    offsets: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    lefts: np.ndarray


class BaseArrays(NamedTuple):
    """The base distribution by symbol, and what leaving one token out makes of it.

    pull: what one occurrence takes from the unigrams. counts, total, cuts, uniform: what Kneser–Ney's base is made of.
    """

    probs: np.ndarray
    pull: float
    occurrences: np.ndarray
    counts: np.ndarray
    total: int
    cuts: float
    uniform: float


class Documents(NamedTuple):
    """Documents to leave out: of each position which one (−1: its own occurrence), and of each what it holds.

    numbers: in the corpus. begins, ends: corpus positions. Document d's ranks are entries first[d] : last[d] of ranks,
    ascending; following: the token after each; lost_from: see `fill_lost_from`, of size 0 where no one has made it.
    label_lost: what the base's count of each position's label loses with its document; lost_total, lost_cuts: the sums
    of the losses and of what that takes from the cuts, by document. Estimators with exclusion have instead of
    label_lost a document's distinct tokens, ascending, at entries token_offsets[d] : token_offsets[d + 1] of tokens,
    with what each loses.
    """

    of: np.ndarray
    numbers: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    last: np.ndarray
    ranks: np.ndarray
    following: np.ndarray
    lost_from: np.ndarray
    label_lost: np.ndarray
    lost_total: np.ndarray
    lost_cuts: np.ndarray
    token_offsets: np.ndarray
    tokens: np.ndarray
    lost: np.ndarray

    @classmethod
    def empty(cls, positions: int, dtype: DTypeLike = np.uint16) -> Documents:
        """None left out, at any of so many positions; dtype: of the index's symbols."""
        nothing = np.empty(0, np.int64)
        return cls(
            of=np.full(positions, -1),
            numbers=nothing,
            begins=nothing,
            ends=nothing,
            first=nothing,
            last=nothing,
            ranks=read_only(np.empty(0, np.uint32)),
            following=read_only(np.empty(0, dtype)),
            lost_from=read_only(np.empty(0, np.uint8)),
            label_lost=np.zeros(positions, np.int64),
            lost_total=nothing,
            lost_cuts=np.empty(0),
            token_offsets=np.zeros(1, np.int64),
            tokens=nothing,
            lost=nothing,
        )


class GoneRows(NamedTuple):
    """What stored rows are without a document: totals, and the tokens whose counts change, for all positions in it.

    slots (·, 2): a hash table from document · rows + row + 1 (0: free) to the number. totals (M, GONE_COLUMNS): sum of
    the counts, and how many are 1, 2, 3 and more; the same of the left extensions; FIRST and END. Row m's changed
    tokens, ascending, are entries offsets[m] : offsets[m + 1] of tokens, with counts and left extensions before and
    after. used (3): rows, and room that was missing, if any, for entries and for rows.
    """

    slots: np.ndarray
    totals: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray
    before: np.ndarray
    after: np.ndarray
    left_before: np.ndarray
    left_after: np.ndarray
    used: np.ndarray

    @classmethod
    def empty(cls, rows: int, entries: int, left: bool) -> GoneRows:
        """Room for so many rows, a power of two, and changed tokens; left: and for their left extensions."""
        return cls(
            slots=np.zeros((2 * rows, 2), np.int64),
            totals=np.zeros((rows, GONE_COLUMNS), np.uint32),
            offsets=np.zeros(rows + 1, np.int64),
            tokens=np.zeros(entries, np.int32),
            before=np.zeros(entries, np.uint32),
            after=np.zeros(entries, np.uint32),
            left_before=np.zeros(entries if left else 0, np.uint32),
            left_after=np.zeros(entries if left else 0, np.uint32),
            used=np.zeros(3, np.int64),
        )


class Mixed(NamedTuple):
    """Targets of some positions in mixed form, to be filled.

    Position q's pairs are pair_offsets[q] : pair_offsets[q + 1]: a token and its mass outside of the rows. That of
    the label, at label_pairs[q] (−1: there is none), is all of its mass: label_changes[q] is to be added where the rows
    count as well. Its references are ref_offsets[q] : ref_offsets[q + 1]: the row, plus the
    number of rows where left extensions count; (s, k1, k2, k3); and what is left out of the row, or −1. rest lies on
    the base.
    """

    pair_offsets: np.ndarray
    pair_tokens: np.ndarray
    pair_masses: np.ndarray
    label_pairs: np.ndarray
    label_changes: np.ndarray
    ref_offsets: np.ndarray
    ref_rows: np.ndarray
    ref_coefficients: np.ndarray
    ref_gone: np.ndarray
    rest: np.ndarray
    match_len: np.ndarray
    context_count: np.ndarray

    @classmethod
    def empty(cls, positions: int, pairs: int = 0, refs: int = 0) -> Mixed:
        """Room for so many positions, and for pairs and references of all of them together."""
        return cls(
            pair_offsets=np.empty(positions + 1, np.int64),
            pair_tokens=np.empty(pairs, np.int64),
            pair_masses=np.empty(pairs, np.float64),
            label_pairs=np.empty(positions, np.int64),
            label_changes=np.empty(positions, np.float64),
            ref_offsets=np.empty(positions + 1, np.int64),
            ref_rows=np.empty(refs, np.int64),
            ref_coefficients=np.empty((refs, 4), np.float64),
            ref_gone=np.empty(refs, np.int64),
            rest=np.empty(positions, np.float64),
            match_len=np.empty(positions, np.int32),
            context_count=np.empty(positions, np.int64),
        )


class Scratch(NamedTuple):
    """What a position's tokens have come to, by symbol; all zero (`seen`: NOWHERE) between positions.

    tally, lefts: counts and left extensions in the node read last. seen: the last run that a token stood in.
    masses: see `Mixed`. tokens: the position's tokens, in the order in which they were met. gone_tokens: those
    that a document takes from a heavy node; gone_counts, gone_lefts, in_run: how often, by symbol. sole_nodes,
    sole_runs: the runs of wide nodes of one continuation, by a hash of the node. rows, places (BLOCK, LEVELS + 1),
    active (3, BLOCK): see `label_places.look_up`. words, summary: bits by symbol, and a bit for each word; zeros
    between uses.
    """

    tally: np.ndarray
    lefts: np.ndarray
    seen: np.ndarray
    masses: np.ndarray
    tokens: np.ndarray
    gone_tokens: np.ndarray
    gone_counts: np.ndarray
    gone_lefts: np.ndarray
    in_run: np.ndarray
    sole_nodes: np.ndarray
    sole_runs: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    active: np.ndarray
    words: np.ndarray
    summary: np.ndarray

    @classmethod
    def empty(cls, num_symbols: int) -> Scratch:
        """As it is between positions."""
        return cls(
            tally=np.zeros(num_symbols, np.uint32),
            lefts=np.zeros(num_symbols, np.uint32),
            seen=np.full(num_symbols, NOWHERE, np.uint32),
            masses=np.zeros(num_symbols, np.float64),
            tokens=np.zeros(num_symbols + 1 + _SPARE, np.int64),
            gone_tokens=np.zeros(num_symbols + 1, np.int64),
            gone_counts=np.zeros(num_symbols, np.int64),
            gone_lefts=np.zeros(num_symbols, np.int64),
            in_run=np.zeros(num_symbols, np.int64),
            sole_nodes=np.full((SOLE_NODES, 3), -1, np.int64),
            sole_runs=np.zeros(SOLE_NODES, np.int64),
            rows=np.zeros((BLOCK, LEVELS + 1), np.int64),
            places=np.zeros((BLOCK, LEVELS + 1), np.int64),
            active=np.zeros((3, BLOCK), np.int64),
            words=np.zeros((num_symbols >> 6) + 1, np.uint64),
            summary=np.zeros((num_symbols >> 12) + 1, np.uint64),
        )
