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

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.label_places import look_up
from corpus_index._kernels.left_out import (
    four_totals,
    gone_row,
    known_gone,
    prefetch_gone,
    prefetch_slots,
    work_of_documents,
)
from corpus_index._kernels.nodes import CAP, node_around, parent_depth, symbol_of
from corpus_index._kernels.rows import find_row, first_at_least, place_in_row
from corpus_index._kernels.rules import LEAST_MASS, MAXIMUM, cut_of, node_weights, root_cut
from corpus_index._kernels.small_nodes import count_narrow, is_narrow
from corpus_index._kernels.tallies import classes, own_of, read, read_others, read_runs, runs_of_one_token, sort_tokens
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

_SOON = 4  # positions between asking for what rows are without a document and reading it


@kernel(forceinline=True)
def _base_without(
    base,  # BaseArrays
    discounts,  # (orders, 3) float64, of the estimator
    left,  # bool, whether the base is made of left extensions
    max_order,  # int64, −1: no bound
    label,  # int64, its symbol
    q,  # int64, its position
    own_above,  # int64, the label's count in the shallowest node that counted; −1 where none did
    documents,  # Documents, or None: the position's own occurrence is what is left out
    document,  # int64, which of them; −1: the own occurrence
):
    """(grown, drop): the base without what is left out is grown · base − drop at the label."""
    probs = base.probs
    if probs[label] >= 1.0:
        return 1.0, 0.0
    lost, lost_total, lost_cuts = np.int64(1), np.int64(1), 0.0
    if document < 0:
        if not left:
            return 1.0 + base.pull, base.pull
        if max_order != 0 and own_above != 1 and base.counts[label] < base.occurrences[label]:
            return 1.0, 0.0  # its predecessor is there without it
    if documents is not None:
        if document >= 0:
            lost = documents.label_lost[q]
            lost_total, lost_cuts = documents.lost_total[document], documents.lost_cuts[document]
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
        without = base.uniform  # the document is the corpus, and nothing smooths
        if kept > 0.0:
            without = (probs[label] - lost * base.pull) / kept
    grown = (1.0 - without) / (1.0 - probs[label])
    return grown, grown * probs[label] - without


@kernel(inline="always")
def _is_row(table, row, lo, hi):
    """Whether a stored row is that of the ranks lo … hi − 1."""
    return np.int64(table[row, LO]) == lo and np.int64(table[row, HI]) == hi


@kernel(forceinline=True)
def _without_one(own, n1, n2, n3):
    """How many counts are 1, 2, 3 and more once the label's, `own`, is one less."""
    return n1 + (own == 2) - (own == 1), n2 + (own == 3) - (own == 2), n3 - (own == 3)


@kernel(forceinline=True)
def _light_counts(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    heavy,  # HeavyNodes
    documents,  # Documents, or None
    scratch,  # Scratch: tally, lefts, seen and tokens hold the node read before, a part of this one
    by_left,  # bool, whether the estimator counts left extensions
    by_runs,  # bool, whether it does so at this depth
    keep,  # bool, whether what is counted must stay in scratch
    a,  # int64, the node's ranks are a … e − 1
    e,
    depth,  # int64
    read_a,  # int64, the ranks that scratch holds: read_a … read_e − 1
    read_e,
    n,  # int64, tokens in scratch
    doc_a,  # int64, the ranks of the document that is left out are documents.ranks[doc_a:doc_e]; equal: none is
    doc_e,
    begin,  # int64, and its corpus positions begin … end − 1
    end,
    label,  # int64, −1 where unknown
):
    """The counts of a node without a stored row: (n, total, n1, n2, n3, left_total, m1, m2, m3, own, own_left).

    n: tokens in scratch. own, own_left: of the label.
    """
    text, nodes = index.text, index.nodes
    own_ranks = own_of(text, text.order, documents, doc_a, doc_e)
    tally, lefts, seen, tokens = scratch.tally, scratch.lefts, scratch.seen, scratch.tokens
    # For scores masks keep nothing, so a chain that began with tallies goes on with them.
    if (keep or n == 0) and is_narrow(text.num_tokens, a, e, depth):
        total, n1, n2, n3, left_total, m1, m2, m3, own, own_left, n = count_narrow(
            next_tokens,
            nodes.common,
            own_ranks,
            a,
            e,
            depth,
            begin,
            end,
            by_runs,
            label,
            keep,
            tally,
            lefts,
            tokens,
        )
        return n, total, n1, n2, n3, left_total, m1, m2, m3, own, own_left
    if n == 0:  # nothing is counted yet
        read_a = read_e = a
    if by_left:
        for i in range(n):  # the node before is one run
            lefts[tokens[i]] = 1
            seen[tokens[i]] = NOWHERE
    if e - a > heavy.light and depth < heavy.deepest:  # all continue alike
        c = symbol_of(next_tokens, a, tally)
        tokens[0] = c
        sole_nodes, sole_runs = scratch.sole_nodes, scratch.sole_runs
        if documents is None or doc_a == doc_e:
            tally[c] = e - a
            if by_left:
                nothing = np.int64(0)
                lefts[c] = runs_of_one_token(text, nodes, a, e, depth, tokens, nothing, nothing, sole_nodes, sole_runs)
        else:
            skip = documents.ranks
            g, g_end = first_at_least(skip, doc_a, doc_e, a), first_at_least(skip, doc_a, doc_e, e)
            tally[c] = (e - a) - (g_end - g)
            if by_left and depth < CAP:
                runs = runs_of_one_token(text, nodes, a, e, depth, skip, g, g, sole_nodes, sole_runs)
                for i in range(g, g_end):
                    runs -= np.int64(documents.lost_from[i]) <= depth
                lefts[c] = runs
            elif by_left:
                lefts[c] = runs_of_one_token(text, nodes, a, e, depth, skip, g, g_end, sole_nodes, sole_runs)
        n = np.int64(1) if tally[c] > 0 else np.int64(0)
    elif by_runs:
        n = read_runs(
            next_tokens, text, own_ranks, nodes.common, a, read_a, depth, begin, end, tally, lefts, seen, tokens, n
        )
        n = read_runs(
            next_tokens, text, own_ranks, nodes.common, read_e, e, depth, begin, end, tally, lefts, seen, tokens, n
        )
    elif doc_a < doc_e:
        n = read_others(next_tokens, own_ranks, a, read_a, begin, end, tally, tokens, n)
        n = read_others(next_tokens, own_ranks, read_e, e, begin, end, tally, tokens, n)
    else:
        n = read(next_tokens, a, read_a, tally, tokens, n)
        n = read(next_tokens, read_e, e, tally, tokens, n)
    total, n1, n2, n3 = classes(tally, tokens, n)
    left_total, m1, m2, m3 = classes(lefts, tokens, n) if by_runs else (total, n1, n2, n3)
    own = np.int64(tally[label]) if label >= 0 else np.int64(0)
    own_left = np.int64(lefts[label]) if label >= 0 else np.int64(0)
    return n, total, n1, n2, n3, left_total, m1, m2, m3, own, own_left


@kernel(forceinline=True)
def _write_pairs(
    tokens,  # (·,) int64, those of the position
    masses,  # (S,) float64, by symbol; zeros afterwards
    n,  # int64, tokens
    label,  # int64
    change,  # float64, to be added to the label's mass where rows count too
    q,  # int64, the position
    words,  # (S / 64,) uint64, zeros between uses
    summary,  # (S / 4096,) uint64, zeros between uses
    out,  # Mixed
    used,  # int64, its pairs in use
):
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


@kernel(work=lambda *arguments: arguments[6].size + work_of_documents(arguments[12]))
def mixed_targets(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    estimator,  # EstimatorArrays
    base,  # BaseArrays
    heavy,  # HeavyNodes
    lo,  # (Q,) int64, first rank of each position's match
    hi,  # (Q,) int64, and the one after its last
    depths,  # (Q,) int32, symbols of it
    started,  # (Q,) int32, 1: it includes its document's start; WHOLE: all that is known, which doesn't begin with one
    labels,  # (Q,) int64, the symbol that follows; −1: unknown, the number of symbols: the corpus lacks it
    leaves,  # bool, whether the label's own occurrence, or its document, is left out
    documents,  # Documents, or None: own occurrences are left out
    scratch,  # Scratch
    gone,  # GoneRows, or None with documents
    scores,  # True: only rest is filled, the label's probability; None: targets, by a kernel without the other's tests
    ahead,  # int64, positions between asking for memory and reading it
    out,  # Mixed, with room for Q positions
):
    """Fill the targets of some positions; returns the first position that had no room."""
    text, nodes = index.text, index.nodes
    common = nodes.common
    rule, by_left = estimator.rule, estimator.left
    tally, lefts, seen, tokens = scratch.tally, scratch.lefts, scratch.seen, scratch.tokens
    masses = scratch.masses
    num_symbols = tally.size
    num_rows = heavy.offsets.size - 1
    table = heavy.table
    rows, places = scratch.rows, scratch.places
    levels = 1 if rule == MAXIMUM else rows.shape[1] - 1
    pairs = refs = np.int64(0)
    keep = scores is None or not scores  # what a target consists of
    if keep:
        out.pair_offsets[0] = 0
        out.ref_offsets[0] = 0
    for q in range(lo.size):
        # what the positions after this one will read
        if q + 2 * ahead < lo.size and hi[q + 2 * ahead] - lo[q + 2 * ahead] <= heavy.light:
            prefetch(common, lo[q + 2 * ahead])
            prefetch(common, hi[q + 2 * ahead])
            prefetch(next_tokens, lo[q + 2 * ahead])
            prefetch(next_tokens, lo[q + 2 * ahead] + 32)
            prefetch(next_tokens, lo[q + 2 * ahead] + 64)
            prefetch(common, lo[q + 2 * ahead] + 64)
            if documents is not None:
                prefetch(text.order, lo[q + 2 * ahead])
                prefetch(text.order, lo[q + 2 * ahead] + 16)
                prefetch(text.order, lo[q + 2 * ahead] + 32)
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
            if documents is not None:
                prefetch_slots(heavy, documents, gone, rows, q, stop)
        if documents is not None:
            if q + _SOON < min(lo.size, q - at + rows.shape[0]):
                prefetch_gone(heavy, documents, gone, rows[at + _SOON], documents.of[q + _SOON])
        # room
        most = heavy.light if depths[q] < heavy.deepest else num_symbols  # pairs
        if keep and (pairs + most + 1 > out.pair_tokens.size or refs + heavy.deepest_chain > out.ref_rows.size):
            return q
        # what is left out
        a, e, depth = lo[q], hi[q], np.int64(depths[q])
        label = labels[q]
        known = 0 <= label < num_symbols
        out_self, document = leaves and known, np.int64(-1)
        doc_a = doc_e = begin = end = np.int64(0)
        if documents is not None:
            out_self = out_self and documents.of[q] < 0
            document = documents.of[q] if leaves and known else np.int64(-1)
            if document >= 0:
                doc_a, doc_e = documents.first[document], documents.last[document]
                begin, end = documents.begins[document], documents.ends[document]
        full = False
        remaining = 1.0
        of_label = heavy_label = 0.0
        own_above = np.int64(-1)  # the label's count one node deeper
        top = True  # no node has counted yet
        length, count = np.int64(0), np.int64(-1)
        n = np.int64(0)
        read_a = read_e = a
        around, row, parent = rows[at, 0], np.int64(-1), np.int64(NO_PARENT)
        level, looked_up, inner = np.int64(0), False, np.int64(-1)
        at_match = True
        while depth > 0:  # a node each time: first light ones, then stored rows
            if row < 0 and e - a > heavy.light:
                if around != NO_PARENT and _is_row(table, around, a, e):
                    row = around
                else:  # its continuations are all the same; or it is all ranks, which `around` never is
                    row = find_row(heavy.bounds, heavy.directory, heavy.shift, a, e)
            number = np.int64(-1)
            if row < 0:  # light nodes, and those of one continuation
                runs = True
                by_runs = by_left and depth != estimator.max_order  # that order counts occurrences
                n, total, n1, n2, n3, left_total, m1, m2, m3, own, own_left = _light_counts(
                    index,
                    next_tokens,
                    heavy,
                    documents,
                    scratch,
                    by_left,
                    by_runs,
                    keep,
                    a,
                    e,
                    depth,
                    read_a,
                    read_e,
                    n,
                    doc_a,
                    doc_e,
                    begin,
                    end,
                    label if known else np.int64(-1),
                )
                read_a, read_e = a, e
                up = parent_depth(text, nodes, a, e, depth)
            else:  # stored rows
                if level == 0:
                    looked_up = row == rows[at, 0]  # else what stands there is of other rows, or of an earlier position
                up, parent = np.int64(table[row, PARENT_DEPTH]), np.int64(table[row, PARENT])
                runs = np.int64(table[row, OWN_DEPTH]) == depth
                start = np.int64(table[row, START])
                stop = start + np.int64(table[row, ENTRIES])
                total = np.int64(table[row, HI]) - np.int64(table[row, LO])
                n1, n2 = np.int64(table[row, RAW_1]), np.int64(table[row, RAW_2])
                n3 = stop - start - n1 - n2
                left_total = np.int64(table[row, LEFT_TOTAL])
                m1, m2 = np.int64(table[row, LEFT_1]), np.int64(table[row, LEFT_2])
                m3 = stop - start - m1 - m2
                if looked_up and level < levels:
                    place = places[at, level]
                else:
                    place = place_in_row(heavy.tokens, start, stop, label) if known else np.int64(-1)
                level += 1
                own = np.int64(heavy.counts[place]) if place >= 0 else np.int64(0)
                own_left = np.int64(heavy.lefts[place]) if by_left and place >= 0 else np.int64(0)
                if documents is not None:
                    if document >= 0:
                        # only what isn't there is a call: that hands some hundred numbers over on the stack
                        number = known_gone(heavy, documents, gone, document, row)
                        if number < 0:
                            number = gone_row(
                                index,
                                next_tokens,
                                endings,
                                heavy,
                                by_left,
                                documents,
                                document,
                                row,
                                inner,
                                scratch,
                                gone,
                            )
                        if number < 0:
                            full = True
                            break
                        inner = number
                        total, n1, n2, n3 = four_totals(gone.totals, number, 0)
                        left_total, m1, m2, m3 = four_totals(gone.totals, number, 4)
                        k = place_in_row(gone.tokens, gone.offsets[number], gone.offsets[number + 1], label)
                        if k >= 0:
                            own = gone.after[k]
                            own_left = gone.left_after[k] if by_left else own_left
            # the position's own occurrence
            left_out = left_gone = np.int64(0)
            if out_self and own > 0:
                left_out = np.int64(1)
                total -= 1
                n1, n2, n3 = _without_one(own, n1, n2, n3)
                if by_left and runs and (own_above == 1 or own_left > own - 1):
                    left_gone = np.int64(1)
                    left_total -= 1
                    m1, m2, m3 = _without_one(own_left, m1, m2, m3)
            # what the node says
            if total > 0:
                from_start = at_match and started[q] == 1
                raw = from_start or (at_match and out_self and started[q] == WHOLE)
                if top:
                    length, count = depth - from_start, total
                if not runs:  # each token has one left extension
                    m1 = n1 + n2 + n3
                remaining, use_left, s, k1, k2, k3 = node_weights(
                    estimator, depth, up, top, raw, total, n1, n2, n3, left_total, m1, m2, m3, remaining
                )
                top = False
                if own > left_out:
                    x = own_left - left_gone if use_left else own - left_out
                    of_label += s * x - cut_of(x, k1, k2, k3)
                if keep and row < 0:
                    for j in range(n):
                        c = tokens[j]
                        x = np.int64(lefts[c]) if use_left else np.int64(tally[c])
                        masses[c] += s * x - cut_of(x, k1, k2, k3)
                elif keep:
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
            # the next shorter context
            own_above = own
            at_match = False
            if (remaining < LEAST_MASS or rule == MAXIMUM) and not top:
                break
            if row >= 0:
                if parent == NO_PARENT:
                    break
                row = parent
            elif up > 0:
                if around != NO_PARENT and np.int64(table[around, OWN_DEPTH]) == up:
                    row = around
                else:
                    a, e = node_around(text, nodes, a, e, up)
            depth = up
        if full:
            for i in range(n):
                tally[tokens[i]] = lefts[tokens[i]] = 0
                seen[tokens[i]] = NOWHERE
                masses[tokens[i]] = 0.0
            return q
        # the base
        if top:
            length, count = np.int64(0), np.int64(-1)  # all of the corpus: the caller knows how much that is
        out.match_len[q] = length
        out.context_count[q] = count
        grown, drop = 1.0, 0.0
        if out_self or document >= 0:
            grown, drop = _base_without(
                base, estimator.discounts, by_left, estimator.max_order, label, q, own_above, documents, document
            )
        if not keep:
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
