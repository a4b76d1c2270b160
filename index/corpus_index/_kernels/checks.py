"""What `verify` asks of an index, rank by rank; every address is checked before a kernel here follows it.

The order of the contexts follows from the steps (Burkhardt & Kärkkäinen 2003 check a suffix array so): if order is a
permutation that begins with the documents' first positions, and each rank's step leads to the next position, then the
contexts ascend. Shared lengths are found in the order of the text, where one is at least the next one's less one
(Kasai et al. 2001). So all is checked in O(N), however repetitive the corpus.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import CAP, document_start
from corpus_index._kernels.walk import step_range


@kernel()
def first_bad_list(symbols, counts, num_ranks, directory, near, far):
    """The first symbol whose occurrence list or directory can't be right; or −1.

    symbols: (4·S,) first, list, directory, shift of each, running sums that fit the arrays. counts: (S,) entries of
    each list. A directory rises from 0 to the length of its list; entries ascend, each in its bucket.
    """
    for c in range(counts.size):
        if counts[c] == 0:
            continue
        place, base = np.int64(symbols[4 * c + 1]), np.int64(symbols[4 * c + 2])
        shift = np.int64(symbols[4 * c + 3])
        a = np.int64(directory[base])
        if a != 0:
            return c
        for b in range((num_ranks >> shift) + 1):
            e = np.int64(directory[base + b + 1])
            if e < a or e > counts[c]:
                return c
            before = np.int64(-1)
            for i in range(place + a, place + e):
                if shift <= 16:
                    entry = np.int64(near[i])
                    inside = entry >> shift == b & (0xFFFF >> shift)
                else:
                    entry = np.int64(far[i])
                    inside = entry >> shift == b and entry < num_ranks
                if not inside or entry <= before:
                    return c
                before = entry
            a = e
        if a != counts[c]:
            return c
    return np.int64(-1)


@kernel()
def first_misstep(text, steps, next_tokens, ranks):
    """The first of some ranks from which the step by its continuation doesn't lead to the next position; or −1."""
    for i in range(ranks.size):
        r = ranks[i]
        position = np.int64(text.order[r])
        c = np.int64(next_tokens[r])
        if c != np.int64(text.tokens[position]):
            return r
        position += 1
        continued = position < text.num_tokens and document_start(text, position) != position
        if steps.symbols[4 * c + 4] == steps.symbols[4 * c]:
            if continued:
                return r
            continue
        lo, hi = step_range(steps, c, r, r + 1)
        if hi - lo != (1 if continued else 0) or (continued and np.int64(text.order[lo]) != position):
            return r
    return np.int64(-1)


@kernel()
def first_disorder(text, common, ranks, limit):
    """The first of some ranks whose context doesn't come after the rank's before, or whose common is wrong; or −1.

    Contexts that share `limit` symbols, which is above CAP, are looked at no further.
    """
    for i in range(ranks.size):
        r = ranks[i]
        if r == 0:
            if common[r] != 0:
                return r
            continue
        p, q = np.int64(text.order[r - 1]), np.int64(text.order[r])
        p_held, q_held = p - document_start(text, p), q - document_start(text, q)
        stop = min(min(p_held, q_held), limit)
        k = np.int64(0)
        while k < stop and text.tokens[p - 1 - k] == text.tokens[q - 1 - k]:
            k += 1
        shared = k + 1 if k == p_held and k == q_held else k
        if min(shared, CAP) != np.int64(common[r]):
            return r
        if k == limit or k == p_held:
            continue  # equal as far as we look, or the one before is the other's beginning
        if k == q_held or text.tokens[p - 1 - k] >= text.tokens[q - 1 - k]:
            return r
    return np.int64(-1)


@kernel()
def fill_shared(text, before, shared):
    """shared[p] = symbols, up to 65,535, that the context of position p shares with that of position before[p].

    before[p]: the position whose context comes right before p's in the order, which is right; p itself for the first.
    """
    tokens, starts = text.tokens, text.doc_starts
    for d in range(starts.size - 1):
        start = np.int64(starts[d])
        known = np.int64(0)
        for p in range(np.int64(starts[d + 1]) - 1, start - 1, -1):
            q = np.int64(before[p])
            if q == p:
                shared[p] = known = 0
                continue
            p_held, q_held = p - start, q - document_start(text, q)
            stop = min(p_held, q_held)
            k = min(known, stop)
            while k < stop and tokens[p - 1 - k] == tokens[q - 1 - k]:
                k += 1
            if k == p_held and k == q_held:
                k += 1
            shared[p] = min(k, 65_535)
            known = max(k - 1, 0)
