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

from typing import NamedTuple

import numpy as np
from numba import njit

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.nodes import CAP, node_around, parent_depth, shared_by_ranks
from corpus_index._kernels.rows import find_row
from corpus_index._kernels.rules import ADD_K, MAXIMUM, weigh
from corpus_index._kernels.walk import step_range

# columns of HeavyNodes.table
LO, HI, PARENT, PARENT_DEPTH, OWN_DEPTH, RAW_1, RAW_2, LEFT_1, LEFT_2, LEFT_TOTAL = range(10)
NO_PARENT = 2**32 - 1
NOWHERE = 2**32 - 1
BLOCK_BITS = 8  # a stored row is wider than such a block, so it holds the first rank of one


class EstimatorArrays(NamedTuple):
    """A rule and its parameters by order, the last one going on; left: orders below the top count left extensions."""

    rule: int
    discounts: np.ndarray
    extra: np.ndarray
    left: bool
    max_order: int


class HeavyNodes(NamedTuple):
    """The stored rows: ranges, ancestors and totals by row (`table`), where they are found, and their entries."""

    table: np.ndarray
    narrowest: np.ndarray
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
    """Documents to leave out: of each position which one (−1: its own occurrence), and of each its ranks.

    ranks are flat, document d's between offsets[d] and offsets[d + 1], ascending. Its distinct tokens, ascending, are
    entries token_offsets[d] : token_offsets[d + 1] of tokens, with what the base's counts lose with the document;
    lost_total, lost_cuts: the sums of the losses and of what that takes from the cuts, by document.
    """

    of: np.ndarray
    offsets: np.ndarray
    ranks: np.ndarray
    token_offsets: np.ndarray
    tokens: np.ndarray
    lost: np.ndarray
    lost_total: np.ndarray
    lost_cuts: np.ndarray


class Mixed(NamedTuple):
    """Targets of some positions in mixed form, to be filled.

    Position q's pairs are pair_offsets[q] : pair_offsets[q + 1]: a token, its mass outside of the rows, and what is to
    be added where the rows count as well. Its references are ref_offsets[q] : ref_offsets[q + 1]: the row, plus the
    number of rows where left extensions count, and (s, k1, k2, k3). rest lies on the base.
    """

    pair_offsets: np.ndarray
    pair_tokens: np.ndarray
    pair_masses: np.ndarray
    pair_changes: np.ndarray
    ref_offsets: np.ndarray
    ref_rows: np.ndarray
    ref_coefficients: np.ndarray
    rest: np.ndarray
    match_len: np.ndarray
    context_count: np.ndarray


class Scratch(NamedTuple):
    """What a position's tokens have come to, by symbol; all zero (`seen`: NOWHERE) between positions.

    tally, lefts: counts and left extensions in the node read last. seen: the last run that a token stood in.
    masses, changes: see `Mixed`. tokens: the position's tokens, in the order in which they were met; listed: those that
    are among them without having been read. gone_…: what a document takes from a heavy node; places, in_run: by symbol.
    """

    tally: np.ndarray
    lefts: np.ndarray
    seen: np.ndarray
    masses: np.ndarray
    changes: np.ndarray
    listed: np.ndarray
    tokens: np.ndarray
    places: np.ndarray
    in_run: np.ndarray
    gone_tokens: np.ndarray
    gone_counts: np.ndarray
    gone_lefts: np.ndarray
    sole_nodes: np.ndarray
    sole_runs: np.ndarray


@njit(cache=True, nogil=True, inline="always")
def cut_of(count, k1, k2, k3):
    """The coefficient of a count's class."""
    return k1 if count == 1 else k2 if count == 2 else k3


@njit(cache=True, nogil=True)
def place_in_row(token_ids, a, e, token):
    """Where a token stands in the row token_ids[a:e], ascending; −1 where it doesn't."""
    n = e - a
    if n == 0:
        return np.int64(-1)
    while n > 1:  # without a branch to guess
        half = n >> 1
        a += half if np.int64(token_ids[a + half]) <= token else 0
        n -= half
    return a if np.int64(token_ids[a]) == token else np.int64(-1)


@njit(cache=True, nogil=True)
def node_weights(
    estimator, depth, shallower, top, from_start, total, n1, n2, n3, runs, left_total, m1, m2, m3, remaining
):
    """What a node adds for its orders depth … shallower + 1: (weight left, left extensions?, s, k1, k2, k3).

    total, n1, n2, n3: sum of the counts, and how many are 1, 2, 3 and more; left_total, m1 …: of the left extensions.
    runs: whether the node's own depth is `depth`; if not, each token has one left extension.
    """
    s0 = k1 = k2 = k3 = 0.0
    use_left = False
    distinct = n1 + n2 + n3
    for order in range(depth, shallower, -1):
        highest = top and order == depth and (estimator.max_order < 0 or from_start)
        if not estimator.left or order == estimator.max_order or highest:
            d1, d2, d3, s, back = weigh(estimator.rule, estimator.discounts, estimator.extra, order, total, n1, n2, n3)
            s *= remaining
            s0 += s
            k1 += s * d1
            k2 += s * d2
            k3 += s * d3
        elif order < depth or not runs:  # one left extension each
            d1, d2, d3, s, back = weigh(
                estimator.rule, estimator.discounts, estimator.extra, order, distinct, distinct, 0, 0
            )
            s *= remaining * (1.0 - d1)
            k1 -= s
            k2 -= s
            k3 -= s
        else:
            d1, d2, d3, s, back = weigh(
                estimator.rule, estimator.discounts, estimator.extra, order, left_total, m1, m2, m3
            )
            s *= remaining
            use_left = True
            s0 += s
            k1 += s * d1
            k2 += s * d2
            k3 += s * d3
        remaining *= back
        if remaining <= 0.0:
            break
    return remaining, use_left, s0, k1, k2, k3


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def root_cut(discounts, count):
    """The discount of a count at order 0; 0 for a count of 0."""
    return discounts[0, min(count, 3) - 1] if count > 0 else 0.0


@njit(cache=True, nogil=True)
def _narrowest_row(table, narrowest, rank):
    """The narrowest stored row that holds a rank, that of all ranks aside; NO_PARENT if there is none."""
    best, width = np.int64(NO_PARENT), np.int64(2**62)
    for block in range(rank >> BLOCK_BITS, (rank >> BLOCK_BITS) + 2):
        row = np.int64(narrowest[block])
        while row != NO_PARENT and not (np.int64(table[row, LO]) <= rank < np.int64(table[row, HI])):
            row = np.int64(table[row, PARENT])
        if row != NO_PARENT and np.int64(table[row, HI]) - np.int64(table[row, LO]) < width:
            best, width = row, np.int64(table[row, HI]) - np.int64(table[row, LO])
    return best


@njit(cache=True, nogil=True, inline="always")
def _classes(tally, tokens, n):
    """The sum of the tallies of n tokens, and how many of them are 1, 2, 3 and more; zeros don't count."""
    total = n1 = n2 = n3 = np.int64(0)
    for i in range(n):
        x = np.int64(tally[tokens[i]])
        total += x
        n1 += x == 1
        n2 += x == 2
        n3 += x > 2
    return total, n1, n2, n3


@njit(cache=True, nogil=True)
def _read(next_tokens, a, e, tally, tokens, n):
    """Tally the continuations of ranks a .. e − 1; returns the number of distinct tokens so far."""
    for r in range(a, e):
        c = np.int64(next_tokens[r])
        tokens[n] = c  # no branch: half of the tokens are new, and no one could guess which
        n += tally[c] == 0
        tally[c] += 1
    return n


@njit(cache=True, nogil=True)
def _read_without(next_tokens, a, e, skip, g, g_end, tally, tokens, n):
    """`_read`, but for the ranks in skip[g:g_end], ascending."""
    for i in range(g, g_end + 1):
        stop = min(e, skip[i]) if i < g_end else e
        if stop >= a:
            n = _read(next_tokens, a, stop, tally, tokens, n)
            a = max(a, stop + 1)
    return n


@njit(cache=True, nogil=True)
def _read_runs(next_tokens, text, common, a, e, depth, skip, g, g_end, tally, lefts, seen, tokens, n):
    """`_read_without`, and in how many runs (parted where ranks share just `depth` symbols) each token stands."""
    run = a
    for r in range(a, e):
        shared = np.int64(common[r])
        if shared == depth or shared == CAP:
            if shared == CAP and depth >= CAP and r > a:
                shared = shared_by_ranks(text, r - 1, r)
            run = r if shared == depth else run
        if g < g_end and skip[g] == r:
            g += 1
            continue
        c = np.int64(next_tokens[r])
        tokens[n] = c
        n += tally[c] == 0
        tally[c] += 1
        lefts[c] += np.int64(seen[c]) != run
        seen[c] = run
    return n


@njit(cache=True, nogil=True)
def _runs_of_one_token(text, nodes, lo, hi, depth, skip, g, g_end, sole_nodes, sole_runs):
    """In how many runs a token stands that is a node's only continuation, ranks in skip[g:g_end] aside."""
    if g == g_end and depth < CAP:
        memo = (lo ^ (hi * 31)) & (sole_runs.size - 1)
        if sole_nodes[memo, 0] != lo or sole_nodes[memo, 1] != hi or sole_nodes[memo, 2] != depth:
            runs = np.int64(1)
            for r in range(lo + 1, hi):
                runs += np.int64(nodes.common[r]) == depth
            sole_nodes[memo, 0], sole_nodes[memo, 1], sole_nodes[memo, 2] = lo, hi, depth
            sole_runs[memo] = runs
        return sole_runs[memo]
    runs, a = np.int64(0), lo
    while a < hi:
        _, e = node_around(text, nodes, a, a + 1, depth + 1)
        first = g
        while g < g_end and skip[g] < e:
            g += 1
        runs += g - first < e - a
        a = e
    return runs


@njit(cache=True, nogil=True)
def gone_in_row(
    text,
    nodes,
    steps,
    next_tokens,
    endings,
    depth,
    count_runs,
    skip,
    g,
    g_end,
    places,
    in_run,
    gone_tokens,
    gone_counts,
    gone_lefts,
):
    """What a document's ranks skip[g:g_end] take from a node: tokens, counts, left extensions; how many tokens.

    A token loses a left extension where all its occurrences in a run are the document's. places, in_run: zeros, by
    symbol, and left so.
    """
    n = 0
    for i in range(g, g_end):
        c = np.int64(next_tokens[skip[i]])
        if places[c] == 0:
            gone_tokens[n] = c
            gone_counts[n] = gone_lefts[n] = 0
            n += 1
            places[c] = n
        gone_counts[places[c] - 1] += 1
    i = g
    while count_runs and i < g_end:
        a, e = node_around(text, nodes, skip[i], skip[i] + 1, depth + 1)
        first = i
        while i < g_end and skip[i] < e:
            in_run[next_tokens[skip[i]]] += 1
            i += 1
        for j in range(first, i):
            c = np.int64(next_tokens[skip[j]])
            if in_run[c] > 0:
                gone_lefts[places[c] - 1] += in_run[c] == _occurrences(steps, next_tokens, endings, c, a, e)
                in_run[c] = 0
    for i in range(n):
        places[gone_tokens[i]] = 0
    return n


@njit(cache=True, nogil=True)
def lost_by_documents(index, next_tokens, endings, offsets, ranks, scratch, token_offsets, tokens, lost):
    """What the empty context's left extensions lose with each document, by token; see `Documents`."""
    used = 0
    for d in range(offsets.size - 1):
        n = gone_in_row(
            index.text,
            index.nodes,
            index.steps,
            next_tokens,
            endings,
            0,
            True,
            ranks,
            offsets[d],
            offsets[d + 1],
            scratch.places,
            scratch.in_run,
            scratch.gone_tokens,
            scratch.gone_counts,
            scratch.gone_lefts,
        )
        order = np.argsort(scratch.gone_tokens[:n])
        for i in range(n):
            tokens[used + i] = scratch.gone_tokens[order[i]]
            lost[used + i] = scratch.gone_lefts[order[i]]
        used += n
        token_offsets[d + 1] = used


@njit(cache=True, nogil=True)
def _occurrences(steps, next_tokens, endings, c, a, e):
    """How often token c continues the ranks a .. e − 1."""
    if e - a <= 64:
        found = np.int64(0)
        for r in range(a, e):
            found += np.int64(next_tokens[r]) == c
        return found
    found = np.int64(0)
    if steps.symbols[4 * c + 4] != steps.symbols[4 * c]:
        lo, hi = step_range(steps, c, a, e)
        found = hi - lo
    key = np.uint64(c) << np.uint64(32)
    found += np.searchsorted(endings, key | np.uint64(e)) - np.searchsorted(endings, key | np.uint64(a))
    return found


@njit(cache=True, nogil=True)
def _write_pairs(tokens, masses, changes, n, out, used):
    """Write the tokens whose mass or change isn't 0, ascending; returns the pairs written so far."""
    if n > 24:
        tokens[:n].sort()
    else:
        for k in range(1, n):
            x = tokens[k]
            j = k - 1
            while j >= 0 and tokens[j] > x:
                tokens[j + 1] = tokens[j]
                j -= 1
            tokens[j + 1] = x
    for k in range(n):
        c = tokens[k]
        if masses[c] != 0.0 or changes[c] != 0.0:
            out.pair_tokens[used] = c
            out.pair_masses[used] = masses[c]
            out.pair_changes[used] = changes[c]
            used += 1
    return used


@njit(cache=True, nogil=True)
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
    targets,
    ahead,
    out,
):
    """Fill the targets of some positions; returns the first position that had no room.

    lo, hi, depths (Q,): the positions' matches. started (Q,): 1 where the match includes its document's start. labels
    (Q,): the token that follows; −1 where unknown, the number of symbols where the corpus lacks it. leaves: whether the
    label's occurrence, or its document, is left out. targets: if not, only rest is filled: the label's probability.
    """
    text, nodes, steps = index.text, index.nodes, index.steps
    common = nodes.common
    rule, max_order, by_left = estimator.rule, estimator.max_order, estimator.left
    tally, lefts, seen, tokens = scratch.tally, scratch.lefts, scratch.seen, scratch.tokens
    masses, changes, listed = scratch.masses, scratch.changes, scratch.listed
    num_symbols = tally.size
    num_rows = heavy.offsets.size - 1
    pairs = refs = np.int64(0)
    if targets:
        out.pair_offsets[0] = 0
        out.ref_offsets[0] = 0
    for q in range(lo.size):
        if q + 2 * ahead < lo.size:
            prefetch(common, lo[q + 2 * ahead])
            prefetch(common, hi[q + 2 * ahead])
            prefetch(next_tokens, lo[q + 2 * ahead])
            prefetch(next_tokens, lo[q + 2 * ahead] + 32)
            prefetch(next_tokens, lo[q + 2 * ahead] + 64)
            prefetch(common, lo[q + 2 * ahead] + 64)
        if targets and (
            pairs + heavy.light + documents.tokens.size + 1 > out.pair_tokens.size
            or refs + heavy.deepest_chain > out.ref_rows.size
        ):
            return q
        a, e, depth = lo[q], hi[q], np.int64(depths[q])
        label = labels[q]
        known = 0 <= label < num_symbols
        out_self = leaves and known and documents.of[q] < 0
        document = documents.of[q] if leaves and known else np.int64(-1)
        g, g_end = np.int64(0), np.int64(0)
        doc_a, doc_e = np.int64(0), np.int64(0)
        if document >= 0:
            doc_a, doc_e = documents.offsets[document], documents.offsets[document + 1]
        remaining = 1.0
        of_label = heavy_label = 0.0
        own_above = np.int64(-1)  # the label's count one node deeper
        top = True  # no node has counted yet
        length, count = np.int64(0), np.int64(-1)
        n = 0
        read_a = read_e = a
        row = around = np.int64(-1)
        at_match = True
        while depth > 0:
            if e - a > heavy.light:
                row = find_row(heavy.bounds, heavy.directory, heavy.shift, a, e)
                if row >= 0:
                    break
            if document >= 0:
                g = doc_a + np.searchsorted(documents.ranks[doc_a:doc_e], a)
                g_end = doc_a + np.searchsorted(documents.ranks[doc_a:doc_e], e)
            if by_left:
                for i in range(n):  # the node before is one run
                    lefts[tokens[i]] = 1
                    seen[tokens[i]] = NOWHERE
            if e - a > heavy.light and depth < heavy.deepest:  # all continue alike
                c = np.int64(next_tokens[a])
                tokens[0] = c
                tally[c] = (e - a) - (g_end - g)
                if by_left:
                    lefts[c] = _runs_of_one_token(
                        text, nodes, a, e, depth, documents.ranks, g, g_end, scratch.sole_nodes, scratch.sole_runs
                    )
                n = 1 if tally[c] > 0 else 0
            elif by_left and depth != max_order:  # that order counts occurrences
                middle = g + np.searchsorted(documents.ranks[g:g_end], read_a) if g < g_end else g
                n = _read_runs(
                    next_tokens,
                    text,
                    common,
                    a,
                    read_a,
                    depth,
                    documents.ranks,
                    g,
                    middle,
                    tally,
                    lefts,
                    seen,
                    tokens,
                    n,
                )
                middle = g + np.searchsorted(documents.ranks[g:g_end], read_e) if g < g_end else g
                n = _read_runs(
                    next_tokens,
                    text,
                    common,
                    read_e,
                    e,
                    depth,
                    documents.ranks,
                    middle,
                    g_end,
                    tally,
                    lefts,
                    seen,
                    tokens,
                    n,
                )
            elif g < g_end:
                n = _read_without(next_tokens, a, read_a, documents.ranks, g, g_end, tally, tokens, n)
                n = _read_without(next_tokens, read_e, e, documents.ranks, g, g_end, tally, tokens, n)
            else:
                n = _read(next_tokens, a, read_a, tally, tokens, n)
                n = _read(next_tokens, read_e, e, tally, tokens, n)
            read_a, read_e = a, e
            up = parent_depth(text, nodes, a, e)
            total, n1, n2, n3 = _classes(tally, tokens, n)
            left_total, m1, m2, m3 = (
                _classes(lefts, tokens, n) if by_left and depth != max_order else (total, n1, n2, n3)
            )
            own = np.int64(tally[label]) if known else np.int64(0)
            own_left = np.int64(lefts[label]) if known else np.int64(0)
            gone, left_gone = np.int64(0), np.int64(0)
            if out_self and own > 0:
                gone = np.int64(1)
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
                if top:
                    length, count = depth - from_start, total
                remaining, use_left, s, k1, k2, k3 = node_weights(
                    estimator, depth, up, top, from_start, total, n1, n2, n3, True, left_total, m1, m2, m3, remaining
                )
                top = False
                if own > gone:
                    x = own_left - left_gone if use_left else own - gone
                    of_label += s * x - cut_of(x, k1, k2, k3)
                if targets:
                    for j in range(n):
                        c = tokens[j]
                        x = np.int64(lefts[c]) if use_left else np.int64(tally[c])
                        masses[c] += s * x - cut_of(x, k1, k2, k3)
            own_above = own
            at_match = False
            if (remaining <= 0.0 or rule == MAXIMUM or rule == ADD_K) and not top:
                depth = np.int64(0)
                break
            if up == 0:
                depth = np.int64(0)
                break
            if around < 0:
                around = _narrowest_row(heavy.table, heavy.narrowest, a)
            if around != NO_PARENT and np.int64(heavy.table[around, OWN_DEPTH]) == up:
                row, depth = around, up
                break
            a, e = node_around(text, nodes, a, e, up)
            depth = up
        while depth > 0 and row >= 0:
            table = heavy.table
            up, parent = np.int64(table[row, PARENT_DEPTH]), np.int64(table[row, PARENT])
            start, stop = heavy.offsets[row], heavy.offsets[row + 1]
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
            place = place_in_row(heavy.tokens, start, stop, label) if known else np.int64(-1)
            own = np.int64(heavy.counts[place]) if place >= 0 else np.int64(0)
            own_left = np.int64(heavy.lefts[place]) if by_left and place >= 0 else np.int64(0)
            gone = left_gone = np.int64(0)
            num_gone = 0
            if out_self and own > 0:
                gone = np.int64(1)
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
                g = doc_a + np.searchsorted(documents.ranks[doc_a:doc_e], np.int64(table[row, LO]))
                g_end = doc_a + np.searchsorted(documents.ranks[doc_a:doc_e], np.int64(table[row, HI]))
                total -= g_end - g
                num_gone = gone_in_row(
                    text,
                    nodes,
                    steps,
                    next_tokens,
                    endings,
                    depth,
                    by_left and runs,
                    documents.ranks,
                    g,
                    g_end,
                    scratch.places,
                    scratch.in_run,
                    scratch.gone_tokens,
                    scratch.gone_counts,
                    scratch.gone_lefts,
                )
                for j in range(num_gone):
                    k = place_in_row(heavy.tokens, start, stop, scratch.gone_tokens[j])
                    x = np.int64(heavy.counts[k])
                    y = x - scratch.gone_counts[j]
                    n1 += (y == 1) - (x == 1)
                    n2 += (y == 2) - (x == 2)
                    n3 += (y > 2) - (x > 2)
                    if by_left:
                        x = np.int64(heavy.lefts[k])
                        y = x - scratch.gone_lefts[j]
                        left_total -= scratch.gone_lefts[j]
                        m1 += (y == 1) - (x == 1)
                        m2 += (y == 2) - (x == 2)
                        m3 += (y > 2) - (x > 2)
                    if scratch.gone_tokens[j] == label:
                        gone, left_gone = scratch.gone_counts[j], scratch.gone_lefts[j]
            if total > 0:
                from_start = at_match and started[q] == 1
                if top:
                    length, count = depth - from_start, total
                remaining, use_left, s, k1, k2, k3 = node_weights(
                    estimator, depth, up, top, from_start, total, n1, n2, n3, runs, left_total, m1, m2, m3, remaining
                )
                top = False
                if own > gone:
                    x = own_left - left_gone if use_left else own - gone
                    of_label += s * x - cut_of(x, k1, k2, k3)
                if targets:
                    out.ref_rows[refs] = row + num_rows if use_left else row
                    out.ref_coefficients[refs, 0] = s
                    out.ref_coefficients[refs, 1] = k1
                    out.ref_coefficients[refs, 2] = k2
                    out.ref_coefficients[refs, 3] = k3
                    refs += 1
                    if own > 0:
                        x = own_left if use_left else own
                        heavy_label += s * x - cut_of(x, k1, k2, k3)
                    for j in range(num_gone):
                        token = scratch.gone_tokens[j]
                        if token != label:
                            k = place_in_row(heavy.tokens, start, stop, token)
                            x = np.int64(heavy.lefts[k]) if use_left else np.int64(heavy.counts[k])
                            y = x - (scratch.gone_lefts[j] if use_left else scratch.gone_counts[j])
                            change = cut_of(x, k1, k2, k3) - s * x
                            if scratch.gone_counts[j] < np.int64(heavy.counts[k]):
                                change += s * y - cut_of(y, k1, k2, k3)
                            if tally[token] == 0 and listed[token] == 0:
                                listed[token] = 1
                                tokens[n] = token
                                n += 1
                            changes[token] += change
            own_above = own
            at_match = False
            if (remaining <= 0.0 or rule == MAXIMUM or rule == ADD_K) and not top:
                break
            if parent == NO_PARENT:
                break
            row, depth = parent, up
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
            if known:  # the label's mass is all but what the base gives it; its change takes the rows' part back
                if tally[label] == 0 and listed[label] == 0:
                    tokens[n] = label
                    n += 1
                masses[label] = of_label - remaining * drop
                changes[label] = -heavy_label
            out.rest[q] = remaining * grown
            pairs = _write_pairs(tokens, masses, changes, n, out, pairs)
            out.pair_offsets[q + 1] = pairs
            out.ref_offsets[q + 1] = refs
        for i in range(n):
            c = tokens[i]
            tally[c] = 0
            if by_left:
                lefts[c] = 0
                seen[c] = NOWHERE
            if targets:
                masses[c] = changes[c] = 0.0
                listed[c] = 0
    return lo.size
