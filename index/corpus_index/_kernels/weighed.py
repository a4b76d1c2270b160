"""Targets in mixed form from the counts of chains: `mixed` without an index, for who has counted several of them.

The same sums in the same order as there, so the same probabilities to the last bit. Rows that are written out become
pairs, and rows that are kept are referred to.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rules import LEAST_MASS, MAXIMUM, cut_of, node_weights
from corpus_index._kernels.tallies import sort_tokens


@kernel()
def weigh_chains(
    estimator,  # EstimatorArrays
    chains,  # ChainCounts
    probs,  # (S + 1,) float64, the base
    grown,  # (Q,) float64, what leaving out makes of the base: grown · base − drop at the label
    drop,  # (Q,) float64
    num_rows,  # int64, of the rows that are kept
    begin,  # int64, the first position
    targets,  # bool; if not, only rest is filled: the label's probability
    masses,  # (S,) float64, zeros between uses
    met,  # (S,) uint32, zeros between uses
    tokens,  # (S + 1,) int64, scratch
    words,  # (S / 64,) uint64, zeros between uses
    summary,  # (S / 4096,) uint64, zeros between uses
    out,  # Mixed, with room for positions begin …
):
    """Fill the targets of positions from `begin` on; returns the first position that had no room."""
    rule, num_symbols = estimator.rule, masses.size
    pairs = refs = np.int64(0)
    size = min(chains.labels.size - begin, out.rest.size)
    if targets:
        out.pair_offsets[0] = 0
        out.ref_offsets[0] = 0
    for i in range(size):
        q = begin + i
        first, root = chains.offsets[q], chains.offsets[q + 1] - 1
        label = chains.labels[q]
        known = 0 <= label < num_symbols
        if targets:
            most = np.int64(1)
            for node in range(first, root):
                row = chains.rows[node]
                most += chains.row_offsets[row + 1] - chains.row_offsets[row]
            if pairs + min(most, num_symbols) + 1 > out.pair_tokens.size or refs + root - first > out.ref_rows.size:
                return q
        remaining, of_label, kept_label = 1.0, 0.0, 0.0
        top = True
        length, count = np.int64(0), chains.occurrences[root, 1]
        n = np.int64(0)
        for node in range(first, root):
            depth, own = chains.depths[node], chains.occurrences[node, 0]
            if top:
                length, count = depth - chains.from_start[q], chains.occurrences[node, 1]
            remaining, use_left, s, k1, k2, k3 = node_weights(
                estimator,
                depth,
                chains.shallower[node],
                top,
                top and chains.counts_occurrences[q],
                chains.occurrences[node, 1],
                chains.occurrences[node, 2],
                chains.occurrences[node, 3],
                chains.occurrences[node, 4],
                chains.lefts[node, 1],
                chains.lefts[node, 2],
                chains.lefts[node, 3],
                chains.lefts[node, 4],
                remaining,
            )
            top = False
            if own > 0:
                x = chains.lefts[node, 0] if use_left else own
                of_label += s * x - cut_of(x, k1, k2, k3)
            row, number = chains.rows[node], chains.gone[node]
            g, g_end = chains.gone_offsets[number], chains.gone_offsets[number + 1]
            if targets and chains.stored[row] >= 0:
                out.ref_rows[refs] = chains.stored[row] + num_rows if use_left else chains.stored[row]
                out.ref_coefficients[refs, 0] = s
                out.ref_coefficients[refs, 1] = k1
                out.ref_coefficients[refs, 2] = k2
                out.ref_coefficients[refs, 3] = k3
                out.ref_gone[refs] = -1 if chains.alone[q] or number == 0 else number
                refs += 1
                x = chains.lefts[node, 0] if use_left else own
                if chains.alone[q] and g < g_end:  # the row has the own occurrence yet
                    x += chains.gone_lefts[g] if use_left else chains.gone_counts[g]
                if x > 0:
                    kept_label += s * x - cut_of(x, k1, k2, k3)
            elif targets:
                for k in range(chains.row_offsets[row], chains.row_offsets[row + 1]):
                    c = chains.row_tokens[k]
                    x = chains.row_counts[k]
                    y = chains.row_lefts[k]
                    while g < g_end and chains.gone_tokens[g] < c:
                        g += 1
                    if g < g_end and chains.gone_tokens[g] == c:
                        x -= chains.gone_counts[g]
                        y -= chains.gone_lefts[g]
                    if x > 0:
                        x = y if use_left else x
                        tokens[n] = c
                        n += met[c] == 0
                        met[c] = 1
                        masses[c] += s * x - cut_of(x, k1, k2, k3)
            if remaining < LEAST_MASS or rule == MAXIMUM:
                break
        out.match_len[i] = length
        out.context_count[i] = count
        if not targets:
            out.rest[i] = of_label + remaining * (grown[q] * probs[label] - drop[q]) if label >= 0 else 0.0
            continue
        out.rest[i] = remaining * grown[q]
        if known:
            if met[label] == 0:
                tokens[n] = label
                n += 1
            masses[label] = of_label - remaining * drop[q]
        sort_tokens(tokens, n, words, summary)
        change = -kept_label if known else 0.0
        out.label_pairs[i], out.label_changes[i] = -1, change
        for j in range(n):
            c = tokens[j]
            mass = masses[c]
            masses[c] = 0.0
            met[c] = 0
            out.pair_tokens[pairs] = c
            out.pair_masses[pairs] = mass
            is_label = c == label and (mass != 0.0 or change != 0.0)
            if is_label:
                out.label_pairs[i] = pairs
            pairs += is_label or mass != 0.0
        out.pair_offsets[i + 1] = pairs
        out.ref_offsets[i + 1] = refs
    return begin + size
