"""Entropy and likeliest token of exact distributions, from their mixed form.

Naively: write the distribution out over V, and take −Σ p log p and the largest. Here only the tokens that a position's
pairs and rows name are gone through; the others are rest · base, whose sums are known beforehand.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel


@kernel(allocates=True)
def measure(
    targets,  # MixedTargets of Q positions
    table,  # RowTable, counts and left extensions
    num_rows,  # int64, R
    base_logs,  # (V,) float64, base · log(base)
    base_sum,  # float64, of base_logs
    descending,  # (V,) int64, the base's tokens, likeliest first
    mass,  # (V,) float64, zeros between uses
    seen,  # (V,) int64, −1 between uses
    out_entropy,  # (Q,) float64, nats
    out_token,  # (Q,) int64, the likeliest
    out_prob,  # (Q,) float64, its probability
):
    """Fill the entropy (nats), the likeliest token (the smaller of equals) and its probability at each position.

    targets: `MixedTargets`. table: `RowTable`, of num_rows rows, any array for left extensions that aren't used.
    base_logs (V,): base · log base, and base_sum its sum. descending (V,): tokens by their base probability. mass, seen
    (V,): zeros, and −1.
    """
    base = targets.base
    touched = np.empty(base.size, np.int64)
    for q in range(targets.rest.size):
        n = 0
        rest = np.float64(targets.rest[q])
        for i in range(targets.offsets[q], targets.offsets[q + 1]):
            token = targets.token_ids[i]
            touched[n] = token
            n += 1
            seen[token] = q
            mass[token] = targets.probs[i]
        for j in range(targets.row_offsets[q], targets.row_offsets[q + 1]):
            row = targets.rows[j]
            s, k1 = np.float64(targets.coefficients[j, 0]), np.float64(targets.coefficients[j, 1])
            k2, k3 = np.float64(targets.coefficients[j, 2]), np.float64(targets.coefficients[j, 3])
            own, left = row >= 2 * num_rows, row >= num_rows
            row -= 2 * num_rows if own else num_rows if left else 0
            begin = targets.own_offsets[row] if own else table.offsets[row]
            end = targets.own_offsets[row + 1] if own else table.offsets[row + 1]
            for i in range(begin, end):
                token = np.int64(targets.own_token_ids[i]) if own else np.int64(table.token_ids[i])
                x = np.int64(table.counts[i]) if not left else np.int64(0)
                if own:
                    x = np.int64(targets.own_counts[i])
                elif left:
                    x = np.int64(table.left_extensions[i])
                if seen[token] != q:
                    touched[n] = token
                    n += 1
                    seen[token] = q
                    mass[token] = 0.0
                mass[token] += s * x - (k1 if x == 1 else k2 if x == 2 else k3)
        entropy, best, best_token = 0.0, -1.0, np.int64(-1)
        others, others_logs = 1.0, base_sum
        for i in range(n):
            token = touched[i]
            of_base = np.float64(base[token])
            p = mass[token] + rest * of_base
            others -= of_base
            others_logs -= base_logs[token]
            if p > 0.0:
                entropy -= p * np.log(p)
            if p > best or (p == best and token < best_token):
                best, best_token = p, token
        if rest > 0.0 and n < base.size:
            entropy -= rest * (np.log(rest) * max(0.0, others) + min(0.0, others_logs))
        for i in range(descending.size):
            token = descending[i]
            if seen[token] != q:
                p = rest * np.float64(base[token])
                if p > best or (p == best and token < best_token):
                    best, best_token = p, token
                break
        out_entropy[q], out_token[q], out_prob[q] = entropy, best_token, best
    seen[:] = -1
