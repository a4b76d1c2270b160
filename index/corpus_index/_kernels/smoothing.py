"""Counts to probabilities, one position at a time, over the rows of its backoff chain.

Each position's target comes out as `sparse + rest · base`: at most top_k explicit (token, probability) pairs, the
remaining mass on the shared base. Working memory is one dense accumulator over the vocabulary a call; time is the
length of all rows of a chain.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from corpus_index._kernels.intrinsics import lowest_bit


@njit(cache=True, nogil=True)
def _count_in_row(token_ids, counts, a, e, token):
    """The count of a token in the row token_ids[a:e], ascending; 0 where it isn't there."""
    stop = e
    while a < e:
        middle = (a + e) >> 1
        if np.int64(token_ids[middle]) < token:
            a = middle + 1
        else:
            e = middle
    return np.int64(counts[a]) if a < stop and np.int64(token_ids[a]) == token else np.int64(0)


@njit(cache=True, nogil=True)
def _kth_largest(values, n, k):
    """The k-th largest of values[:n], 1 ≤ k ≤ n, by quickselect; reorders them."""
    lo, hi = 0, n - 1
    target = k - 1
    while lo < hi:
        pivot = values[(lo + hi) >> 1]
        i, j = lo, hi
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            hi = j
        elif target >= i:
            lo = i
        else:
            break
    return values[target]


@njit(cache=True, nogil=True)
def witten_bell_targets(
    chain_offsets,
    chain_depth,
    chain_width,
    chain_row,
    num_stored,
    stored_offsets,
    stored_tokens,
    stored_counts,
    own_offsets,
    own_tokens,
    own_counts,
    labels,
    unigrams,
    pull,
    started,
    top_k,
    out_offsets,
    out_tokens,
    out_probs,
    out_rest,
    out_cut,
    out_len,
    out_count,
):
    """Interpolated Witten–Bell over the chains of some positions; see `estimators.witten_bell`.

    chain_…: the nodes of each position, deepest first, with their rows. labels[q]: the token whose occurrence is left
    out, −1 for none; unigrams: its count and every symbol's. pull: 1 / (N − 1 + T_0), what leaving one token out takes
    from the unigrams. started[q]: 1 where the deepest node includes the document's start. out_len, out_count: tokens
    and occurrences of the deepest node that counted; out_cut: the mass that top_k cut. Returns the entries written.
    """
    num_symbols = unigrams.size
    used = 0
    num_tokens = unigrams.sum()
    mass = np.zeros(num_symbols, np.float64)
    touched = np.zeros((num_symbols >> 6) + 1, np.uint64)
    summary = np.zeros((num_symbols >> 12) + 1, np.uint64)
    sorting = np.empty(num_symbols, np.float64)
    ids = np.empty(num_symbols, np.int64)
    for q in range(labels.size):
        label = labels[q]
        leaves = label >= 0 and unigrams[label] > 0
        remaining = 1.0  # what the deeper orders leave to the shallower
        out_len[q] = -1
        for node in range(chain_offsets[q], chain_offsets[q + 1]):
            row = chain_row[node]
            if row < num_stored:
                token_ids, counts = stored_tokens, stored_counts
                a, e = np.int64(stored_offsets[row]), np.int64(stored_offsets[row + 1])
            else:
                token_ids, counts = own_tokens, own_counts
                a, e = np.int64(own_offsets[row - num_stored]), np.int64(own_offsets[row - num_stored + 1])
            total, distinct = chain_width[node], e - a
            own = _count_in_row(token_ids, counts, a, e, label) if leaves else np.int64(0)
            if own > 0:
                total -= 1
                if own == 1:
                    distinct -= 1
            if total == 0:
                continue
            if out_len[q] < 0:
                out_len[q] = chain_depth[node] - (started[q] if node == chain_offsets[q] else 0)
                out_count[q] = total
            shallower = chain_depth[node + 1] if node + 1 < chain_offsets[q + 1] else 0
            # the same counts stand at every order from this depth down to the next node's
            back = (distinct / (total + distinct)) ** (chain_depth[node] - shallower)
            weight = remaining * (1.0 - back)
            remaining *= back
            each = weight / total
            if each > 0.0:
                for k in range(a, e):
                    c = np.int64(token_ids[k])
                    touched[c >> 6] |= np.uint64(1) << np.uint64(c & 63)
                    summary[c >> 12] |= np.uint64(1) << np.uint64((c >> 6) & 63)
                    mass[c] += each * counts[k]
                if own > 0:
                    mass[label] -= each
        if out_len[q] < 0:
            out_len[q] = 0
            out_count[q] = num_tokens - 1 if leaves else num_tokens
        kept_always = np.int64(-1)
        if leaves:  # the unigrams without the label's occurrence: (1 + pull) · base − pull at the label
            touched[label >> 6] |= np.uint64(1) << np.uint64(label & 63)
            summary[label >> 12] |= np.uint64(1) << np.uint64((label >> 6) & 63)
            mass[label] -= remaining * pull
            kept_always = label
        n = 0
        for s in range(summary.size):
            while summary[s] != 0:
                w = (s << 6) + lowest_bit(summary[s])
                summary[s] &= summary[s] - np.uint64(1)
                word = touched[w]
                touched[w] = 0
                while word != 0:
                    ids[n] = (w << 6) + lowest_bit(word)
                    word &= word - np.uint64(1)
                    n += 1
        threshold = -np.inf
        room = top_k
        if n > top_k:
            others = 0
            for i in range(n):
                if ids[i] != kept_always:
                    sorting[others] = mass[ids[i]]
                    others += 1
            room = top_k - 1 if kept_always >= 0 else top_k
            if room > 0:
                threshold = _kth_largest(sorting, others, room)
            above = 0
            for i in range(others):
                if sorting[i] > threshold:
                    above += 1
            ties = room - above  # entries equal to the threshold that still fit
        else:
            ties = n
        cut = 0.0
        explicit = 0.0
        for i in range(n):
            c = ids[i]
            value = mass[c]
            mass[c] = 0.0
            if c == kept_always or (room > 0 and value > threshold) or n <= top_k:
                keep = True
            elif room > 0 and value == threshold and ties > 0:
                keep = True
                ties -= 1
            else:
                keep = False
            if keep:
                if value != 0.0:
                    out_tokens[used] = c
                    out_probs[used] = value
                    explicit += np.float64(out_probs[used])
                    used += 1
            else:
                cut += value
        out_cut[q] = cut
        out_rest[q] = max(0.0, 1.0 - explicit)
        out_offsets[q + 1] = used
    return used
