"""What rows of counts, as a batch refers to them, make of a value for each token: a sum, and its derivative.

A reference stands for s · x − k(x) at each entry of its row, x the count there; see `targets.references`.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel


def _num_entries(references, first, last, *rest):
    return int((references.ends[first:last] - references.begins[first:last]).sum())


@kernel(inline="always")
def _is_cut(coefficients, f):
    """Whether reference f takes something from any count."""
    return coefficients[f, 1] != 0 or coefficients[f, 2] != 0 or coefficients[f, 3] != 0


@kernel(inline="always")
def _cut(coefficients, f, x):
    """k(x) of reference f: by a count of 1, 2, 3 and more."""
    return np.float64(coefficients[f, min(np.int64(x), 3)])


@kernel(work=_num_entries)
def add_expectations(
    references,  # References
    first,  # int64, of the references first .. last − 1
    last,  # int64
    begin,  # int64, the position of the first row of values
    values,  # (Q, W) float32 or float64
    sums,  # (Q,) as values, in and out
):
    """Add Σ_w p(w) · values[q, w] of each reference to its position's sum; in float64."""
    token_ids, counts, begins, ends, coefficients, positions = references
    for f in range(first, last):
        q, total = positions[f] - begin, 0.0
        scale = np.float64(coefficients[f, 0])
        if _is_cut(coefficients, f):
            for i in range(begins[f], ends[f]):
                probability = scale * np.float64(counts[i]) - _cut(coefficients, f, counts[i])
                total += probability * np.float64(values[q, token_ids[i]])
            sums[q] += total
        else:
            for i in range(begins[f], ends[f]):
                total += np.float64(counts[i]) * np.float64(values[q, token_ids[i]])
            sums[q] += scale * total


@kernel(work=_num_entries)
def subtract_rows(
    references,  # References
    first,  # int64, of the references first .. last − 1
    last,  # int64
    begin,  # int64, the position of the first row of values
    factors,  # (Q,) as values
    values,  # (Q, W) float32 or float64, in and out
):
    """Take factors[q] · p(w) of each reference from the values of its position."""
    token_ids, counts, begins, ends, coefficients, positions = references
    for f in range(first, last):
        q = positions[f] - begin
        factor = np.float64(factors[q])
        scale = factor * np.float64(coefficients[f, 0])
        if _is_cut(coefficients, f):
            for i in range(begins[f], ends[f]):
                values[q, token_ids[i]] -= scale * np.float64(counts[i]) - factor * _cut(coefficients, f, counts[i])
        else:
            for i in range(begins[f], ends[f]):
                values[q, token_ids[i]] -= scale * np.float64(counts[i])
