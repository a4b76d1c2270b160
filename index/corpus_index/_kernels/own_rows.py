"""Rows of a batch's own: what the stored rows that its targets refer to lose with the documents that are left out."""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel


@kernel()
def write_references(
    mixed,  # Mixed
    size,  # int64, its positions
    num_rows,  # int64, stored rows
    numbering,  # (G, 2) int64, the own rows of what is gone, by number and kind of count; −1: none yet; in and out
    used,  # int64, how many there are
    offsets,  # (size + 1,) int64, out from the second on: where each position's references begin
    begin,  # int64, offsets[0]
    rows,  # (·,) int64, out
    coefficients,  # (·, 4) float32, out
):
    """Write the references of some positions, two more where something is gone; returns how many own rows there are.

    The two: what the tokens that change had, with the coefficients negated, and what they have, as rows
    2 · num_rows + 2 · m and the next one; m: the number of what is gone in `numbering`.
    """
    k = np.int64(0)
    for q in range(size):
        for j in range(mixed.ref_offsets[q], mixed.ref_offsets[q + 1]):
            row, number = mixed.ref_rows[j], mixed.ref_gone[j]
            rows[k] = row
            for i in range(4):
                coefficients[k, i] = np.float32(mixed.ref_coefficients[j, i])
            k += 1
            if number >= 0:
                kind = np.int64(1) if row >= num_rows else np.int64(0)
                own = numbering[number, kind]
                if own < 0:
                    own = used
                    numbering[number, kind] = own
                    used += 1
                rows[k], rows[k + 1] = 2 * (num_rows + own), 2 * (num_rows + own) + 1
                for i in range(4):
                    coefficients[k, i], coefficients[k + 1, i] = -coefficients[k - 1, i], coefficients[k - 1, i]
                k += 2
        offsets[q + 1] = begin + k
    return used


@kernel()
def fill_own_rows(
    gone,  # GoneRows
    chosen,  # (M, 2) int64, number and kind of each, by the numbers of `write_references`
    offsets,  # (2 M + 1,) int64, zeros; out
    tokens,  # (·,) int64, out
    counts,  # (·,) int64, out
):
    """Two rows for each chosen one: what its tokens that change had, and what those that are left have."""
    k = np.int64(0)
    for m in range(chosen.shape[0]):
        number, left = chosen[m, 0], chosen[m, 1] == 1
        before, after = gone.left_before if left else gone.before, gone.left_after if left else gone.after
        for i in range(gone.offsets[number], gone.offsets[number + 1]):
            tokens[k], counts[k] = gone.tokens[i], before[i]
            k += before[i] > 0
        offsets[2 * m + 1] = k
        for i in range(gone.offsets[number], gone.offsets[number + 1]):
            tokens[k], counts[k] = gone.tokens[i], after[i]
            k += after[i] > 0
        offsets[2 * m + 2] = k
