"""Interpolated estimators: from the match of each position to its target in mixed form.

Every one of them mixes, order by order, p_n(w) = (c(w) − D) · s + γ · p_{n−1}(w); `rules` has their D, s and γ. From
the deepest order down, the weight that is left multiplies up. What is left at the end lies on the base distribution.

The *mixed* form of a target is exact and short: pairs (token, mass) for the contexts with few occurrences, and for each
heavy context, whose row is stored, a *reference*: the row's number and four coefficients s, k1, k2, k3. A token with a
count x in that row gets s · x − k(x), with k by x = 1, 2, 3 and more. Where something is left out, pairs correct what
the rows say of it.

A position's contexts with few occurrences lie within one another, so their ranks are read once: each wider one adds the
ranks to the left and to the right. A document that is left out is left out by not reading its ranks.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import UNCOUNTED, prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.label_places import look_up
from corpus_index._kernels.left_out import gone_row
from corpus_index._kernels.nodes import node_around, parent_depth
from corpus_index._kernels.rows import find_row, place_in_row
from corpus_index._kernels.rules import ADD_K, LEAST_MASS, MAXIMUM, cut_of, node_weights, root_cut
from corpus_index._kernels.small_nodes import count_narrow, is_narrow
from corpus_index._kernels.tallies import classes, read, read_others, read_runs, runs_of_one_token, sort_tokens
from corpus_index._kernels.target_arrays import (
    ENTRIES,
    HI,
    LEFT_1,
    LEFT_2,
    LEFT_TOTAL,
    LO,
    NO_PARENT,
    NOWHERE,
    OWN_DEPTH,
    PARENT,
    PARENT_DEPTH,
    RAW_1,
    RAW_2,
    START,
    WHOLE,
)


@kernel(**UNCOUNTED, forceinline=True)
def _base_without(base, discounts, left, max_order, label, own_above, documents, document):
    """(grown, drop): the base without what is left out is grown · base − drop at the label."""
    probs = base.probs
    if probs[label] >= 1.0:
        return 1.0, 0.0
    lost, lost_total, lost_cuts = np.int64(1), np.int64(1), 0.0
    if document >= 0:
        a, e = documents.token_offsets[document], documents.token_offsets[document + 1]
        k = place_in_row(documents.tokens, a, e, label)
        lost = documents.lost[k] if k >= 0 else np.int64(0)
        lost_total, lost_cuts = documents.lost_total[document], documents.lost_cuts[document]
    elif not left:
        return 1.0 + base.pull, base.pull
    elif max_order != 0 and own_above != 1 and base.counts[label] < base.occurrences[label]:
        return 1.0, 0.0  # its predecessor is there without it
    if left:
        count, total = np.int64(base.counts[label]), base.total - lost_total
        without = base.uniform
        if total > 0:
            cut = root_cut(discounts, count - lost)
            if document < 0:
                lost_cuts = root_cut(discounts, count) - cut
            without = (count - lost - cut + (base.cuts - lost_cuts) * base.uniform) / total
    else:
        kept = 1.0 - lost_total * base.pull  # pull = 1 / (N + T_0)
        if kept <= 0.0:  # the document is the corpus
            return 1.0, 0.0
        without = (probs[label] - lost * base.pull) / kept
    grown = (1.0 - without) / (1.0 - probs[label])
    return grown, grown * probs[label] - without


@kernel(**UNCOUNTED, inline="always")
def _is_row(table, row, lo, hi):
    """Whether a stored row is that of the ranks lo … hi − 1."""
    return np.int64(table[row, LO]) == lo and np.int64(table[row, HI]) == hi


@kernel(**UNCOUNTED, forceinline=True)
def _write_pairs(tokens, masses, n, label, change, q, words, summary, out, used):
    """Write position q's tokens whose mass or change isn't 0, ascending, and clear the masses; returns the pairs."""
    sort_tokens(tokens, n, words, summary)
    out.label_pairs[q], out.label_changes[q] = -1, change
    for k in range(n):
        c = tokens[k]
        mass = masses[c]
        masses[c] = 0.0
        out.pair_tokens[used] = c
        out.pair_masses[used] = mass
        is_label = c == label and (mass != 0.0 or change != 0.0)
        if is_label:
            out.label_pairs[q] = used
        used += is_label or mass != 0.0
    out.pair_offsets[q + 1] = used
    return used


@kernel(**UNCOUNTED)
def mixed_targets(
    index,
    next_tokens,
    endings,
    estimator,
    base,
    heavy,
    lo,
    hi,
    depths,
    started,
    labels,
    leaves,
    documents,
    scratch,
    gone,
    targets,
    ahead,
    out,
):
    """Fill the targets of some positions; returns the first position that had no room.

    lo, hi, depths (Q,): the positions' matches. started (Q,): 1 where the match includes its document's start,
    WHOLE where it is all that is known and that doesn't begin with the start. labels (Q,): the token that follows; −1
    where unknown, the number of symbols where the corpus lacks it. leaves: whether the label's occurrence, or its
    document, is left out. targets: if not, only rest is filled: the label's probability.
    """
    text, nodes = index.text, index.nodes
    common = nodes.common
    rule, max_order, by_left = estimator.rule, estimator.max_order, estimator.left
    tally, lefts, seen, tokens = scratch.tally, scratch.lefts, scratch.seen, scratch.tokens
    masses = scratch.masses
    num_symbols = tally.size
    num_rows = heavy.offsets.size - 1
    rows, places = scratch.rows, scratch.places
    levels = 1 if rule == MAXIMUM or rule == ADD_K else rows.shape[1] - 1
    pairs = refs = np.int64(0)
    if targets:
        out.pair_offsets[0] = 0
        out.ref_offsets[0] = 0
    for q in range(lo.size):
        if q + 2 * ahead < lo.size and hi[q + 2 * ahead] - lo[q + 2 * ahead] <= heavy.light:
            prefetch(common, lo[q + 2 * ahead])
            prefetch(common, hi[q + 2 * ahead])
            prefetch(next_tokens, lo[q + 2 * ahead])
            prefetch(next_tokens, lo[q + 2 * ahead] + 32)
            prefetch(next_tokens, lo[q + 2 * ahead] + 64)
            prefetch(common, lo[q + 2 * ahead] + 64)
        soon = labels[q + ahead] if q + ahead < lo.size else np.int64(-1)
        if 0 <= soon < num_symbols:
            prefetch(base.probs, soon)
            if by_left:
                prefetch(base.counts, soon)
                prefetch(base.occurrences, soon)
        at = q % rows.shape[0]
        if at == 0:
            stop = min(q + rows.shape[0], lo.size)
            look_up(heavy, lo, hi, labels, num_symbols, q, stop, levels, by_left, rows, places, scratch.active)
        most = heavy.light if depths[q] < heavy.deepest else num_symbols  # pairs
        if targets and (pairs + most + 1 > out.pair_tokens.size or refs + heavy.deepest_chain > out.ref_rows.size):
            return q
        a, e, depth = lo[q], hi[q], np.int64(depths[q])
        label = labels[q]
        known = 0 <= label < num_symbols
        out_self = leaves and known and documents.of[q] < 0
        document = documents.of[q] if leaves and known else np.int64(-1)
        g, g_end = np.int64(0), np.int64(0)
        doc_a = doc_e = begin = end = np.int64(0)
        if document >= 0:
            doc_a, doc_e = documents.offsets[document], documents.offsets[document + 1]
            begin, end = documents.begins[document], documents.ends[document]
        full = False
        remaining = 1.0
        of_label = heavy_label = 0.0
        own_above = np.int64(-1)  # the label's count one node deeper
        top = True  # no node has counted yet
        length, count = np.int64(0), np.int64(-1)
        n = 0
        read_a = read_e = a
        around, row = rows[at, 0], np.int64(-1)
        at_match = True
        while depth > 0:
            if e - a > heavy.light:
                if around != NO_PARENT and _is_row(heavy.table, around, a, e):
                    row = around
                else:  # its continuations are all the same; or it is all ranks, which `around` never is
                    row = find_row(heavy.bounds, heavy.directory, heavy.shift, a, e)
                if row >= 0:
                    break
            by_runs = by_left and depth != max_order  # that order counts occurrences
            # For scores masks keep nothing, so a chain that began with tallies goes on with them.
            if document < 0 and (targets or n == 0) and is_narrow(text.order.size, a, e, depth):
                total, n1, n2, n3, left_total, m1, m2, m3, own, own_left, n = count_narrow(
                    next_tokens,
                    common,
                    a,
                    e,
                    depth,
                    by_runs,
                    label if known else np.int64(-1),
                    targets,
                    tally,
                    lefts,
                    tokens,
                )
            else:
                if n == 0:  # nothing is counted yet
                    read_a = read_e = a
                if by_left:
                    for i in range(n):  # the node before is one run
                        lefts[tokens[i]] = 1
                        seen[tokens[i]] = NOWHERE
                if e - a > heavy.light and depth < heavy.deepest:  # all continue alike
                    g = doc_a + np.searchsorted(documents.ranks[doc_a:doc_e], a)
                    g_end = doc_a + np.searchsorted(documents.ranks[doc_a:doc_e], e)
                    c = np.int64(next_tokens[a])
                    tokens[0] = c
                    tally[c] = (e - a) - (g_end - g)
                    if by_left:
                        lefts[c] = runs_of_one_token(
                            text, nodes, a, e, depth, documents.ranks, g, g_end, scratch.sole_nodes, scratch.sole_runs
                        )
                    n = 1 if tally[c] > 0 else 0
                elif by_runs:
                    n = read_runs(
                        next_tokens, text, common, a, read_a, depth, begin, end, tally, lefts, seen, tokens, n
                    )
                    n = read_runs(
                        next_tokens, text, common, read_e, e, depth, begin, end, tally, lefts, seen, tokens, n
                    )
                elif document >= 0:
                    n = read_others(next_tokens, text.order, a, read_a, begin, end, tally, tokens, n)
                    n = read_others(next_tokens, text.order, read_e, e, begin, end, tally, tokens, n)
                else:
                    n = read(next_tokens, a, read_a, tally, tokens, n)
                    n = read(next_tokens, read_e, e, tally, tokens, n)
                total, n1, n2, n3 = classes(tally, tokens, n)
                left_total, m1, m2, m3 = classes(lefts, tokens, n) if by_runs else (total, n1, n2, n3)
                own = np.int64(tally[label]) if known else np.int64(0)
                own_left = np.int64(lefts[label]) if known else np.int64(0)
            read_a, read_e = a, e
            up = parent_depth(text, nodes, a, e)
            left_out, left_gone = np.int64(0), np.int64(0)
            if out_self and own > 0:
                left_out = np.int64(1)
                total -= 1
                n1 += (own == 2) - (own == 1)
                n2 += (own == 3) - (own == 2)
                n3 -= own == 3
                if by_left and (own_above == 1 or own_left > own - 1):
                    left_gone = np.int64(1)
                    left_total -= 1
                    m1 += (own_left == 2) - (own_left == 1)
                    m2 += (own_left == 3) - (own_left == 2)
                    m3 -= own_left == 3
            if total > 0:
                from_start = at_match and started[q] == 1
                raw = from_start or (at_match and out_self and started[q] == WHOLE)
                if top:
                    length, count = depth - from_start, total
                remaining, use_left, s, k1, k2, k3 = node_weights(
                    estimator, depth, up, top, raw, total, n1, n2, n3, True, left_total, m1, m2, m3, remaining
                )
                top = False
                if own > left_out:
                    x = own_left - left_gone if use_left else own - left_out
                    of_label += s * x - cut_of(x, k1, k2, k3)
                if targets:
                    for j in range(n):
                        c = tokens[j]
                        x = np.int64(lefts[c]) if use_left else np.int64(tally[c])
                        masses[c] += s * x - cut_of(x, k1, k2, k3)
            own_above = own
            at_match = False
            if (remaining < LEAST_MASS or rule == MAXIMUM or rule == ADD_K) and not top:
                depth = np.int64(0)
                break
            if up == 0:
                depth = np.int64(0)
                break
            if around != NO_PARENT and np.int64(heavy.table[around, OWN_DEPTH]) == up:
                row, depth = around, up
                break
            a, e = node_around(text, nodes, a, e, up)
            depth = up
        level = np.int64(0)
        looked_up = row == rows[at, 0]  # else what stands there is of other rows, or of an earlier position
        while depth > 0 and row >= 0:
            table = heavy.table
            up, parent = np.int64(table[row, PARENT_DEPTH]), np.int64(table[row, PARENT])
            start = np.int64(table[row, START])
            stop = start + np.int64(table[row, ENTRIES])
            total = np.int64(table[row, HI]) - np.int64(table[row, LO])
            n1, n2 = np.int64(table[row, RAW_1]), np.int64(table[row, RAW_2])
            n3 = stop - start - n1 - n2
            left_total, m1, m2 = (
                np.int64(table[row, LEFT_TOTAL]),
                np.int64(table[row, LEFT_1]),
                np.int64(table[row, LEFT_2]),
            )
            m3 = stop - start - m1 - m2
            runs = np.int64(table[row, OWN_DEPTH]) == depth
            if looked_up and level < levels:
                place = places[at, level]
            else:
                place = place_in_row(heavy.tokens, start, stop, label) if known else np.int64(-1)
            level += 1
            own = np.int64(heavy.counts[place]) if place >= 0 else np.int64(0)
            own_left = np.int64(heavy.lefts[place]) if by_left and place >= 0 else np.int64(0)
            left_out = left_gone = np.int64(0)
            number = np.int64(-1)
            if out_self and own > 0:
                left_out = np.int64(1)
                total -= 1
                n1 += (own == 2) - (own == 1)
                n2 += (own == 3) - (own == 2)
                n3 -= own == 3
                if by_left and runs and (own_above == 1 or own_left > own - 1):
                    left_gone = np.int64(1)
                    left_total -= 1
                    m1 += (own_left == 2) - (own_left == 1)
                    m2 += (own_left == 3) - (own_left == 2)
                    m3 -= own_left == 3
            elif document >= 0:
                number = gone_row(index, next_tokens, endings, heavy, by_left, documents, document, row, scratch, gone)
                if number < 0:
                    full = True
                    break
                totals = gone.totals
                total, n1, n2, n3 = totals[number, 0], totals[number, 1], totals[number, 2], totals[number, 3]
                left_total, m1, m2, m3 = totals[number, 4], totals[number, 5], totals[number, 6], totals[number, 7]
                k = place_in_row(gone.tokens, gone.offsets[number], gone.offsets[number + 1], label)
                if k >= 0:
                    own = gone.after[k]
                    own_left = gone.left_after[k] if by_left else own_left
            if total > 0:
                from_start = at_match and started[q] == 1
                raw = from_start or (at_match and out_self and started[q] == WHOLE)
                if top:
                    length, count = depth - from_start, total
                remaining, use_left, s, k1, k2, k3 = node_weights(
                    estimator, depth, up, top, raw, total, n1, n2, n3, runs, left_total, m1, m2, m3, remaining
                )
                top = False
                if own > left_out:
                    x = own_left - left_gone if use_left else own - left_out
                    of_label += s * x - cut_of(x, k1, k2, k3)
                if targets:
                    out.ref_rows[refs] = row + num_rows if use_left else row
                    out.ref_coefficients[refs, 0] = s
                    out.ref_coefficients[refs, 1] = k1
                    out.ref_coefficients[refs, 2] = k2
                    out.ref_coefficients[refs, 3] = k3
                    out.ref_gone[refs] = number
                    refs += 1
                    if own > 0:
                        x = own_left if use_left else own
                        heavy_label += s * x - cut_of(x, k1, k2, k3)
            own_above = own
            at_match = False
            if (remaining < LEAST_MASS or rule == MAXIMUM or rule == ADD_K) and not top:
                break
            if parent == NO_PARENT:
                break
            row, depth = parent, up
        if full:
            for i in range(n):
                tally[tokens[i]] = lefts[tokens[i]] = 0
                seen[tokens[i]] = NOWHERE
                masses[tokens[i]] = 0.0
            return q
        if top:
            length, count = np.int64(0), np.int64(-1)  # all of the corpus: the caller knows how much that is
        out.match_len[q] = length
        out.context_count[q] = count
        grown, drop = 1.0, 0.0
        if out_self or document >= 0:
            grown, drop = _base_without(
                base, estimator.discounts, by_left, max_order, label, own_above, documents, document
            )
        if not targets:
            out.rest[q] = of_label + remaining * (grown * base.probs[label] - drop) if label >= 0 else 0.0
        else:
            change = 0.0
            if known:  # the label's mass is all but what the base gives it; its change takes the rows' part back
                if tally[label] == 0:
                    tokens[n] = label
                    n += 1
                masses[label] = of_label - remaining * drop
                change = -heavy_label
            out.rest[q] = remaining * grown
            pairs = _write_pairs(tokens, masses, n, label, change, q, scratch.words, scratch.summary, out, pairs)
            out.ref_offsets[q + 1] = refs
        for i in range(n):
            c = tokens[i]
            tally[c] = 0
            if by_left:
                lefts[c] = 0
                seen[c] = NOWHERE
    return lo.size
