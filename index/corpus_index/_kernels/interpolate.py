"""Interpolated estimators: counts to probabilities, one position at a time, over the rows of its backoff chain.

Every one of them mixes, order by order, p_n(w) = (c(w) − D) · s + γ · p_{n−1}(w), with a discount D, a scale s and a
backoff weight γ that depend on the order and on a few totals of the row. From the deepest order down, the weight that
is left multiplies up, and a row is read once for all orders that its node stands for. What is left at the end lies on
the base distribution, so a target is `sparse + rest · base`.

The rules of D, s and γ are in `rules`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from corpus_index._kernels.intrinsics import lowest_bit
from corpus_index._kernels.rules import ADD_K, MAXIMUM, weigh


@njit(cache=True, nogil=True)
def _place_in_row(token_ids, a, e, token):
    """Where a token stands in the row token_ids[a:e], ascending; −1 where it doesn't."""
    stop = e
    while a < e:
        middle = (a + e) >> 1
        if np.int64(token_ids[middle]) < token:
            a = middle + 1
        else:
            e = middle
    return a if a < stop and np.int64(token_ids[a]) == token else np.int64(-1)


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


@njit(cache=True, nogil=True, inline="always")
def _class(count):
    """0, 1, 2 for counts of 1, 2, 3 and more."""
    return min(count, 3) - 1


@njit(cache=True, nogil=True)
def root_cut(discounts, count):
    """The discount of a count at order 0; 0 for a count of 0."""
    return discounts[0, min(count, 3) - 1] if count > 0 else 0.0


@njit(cache=True, nogil=True)
def _classes(counts, a, e):
    """How many of counts[a:e] are 1, 2, 3 and more, and their sum."""
    n1 = n2 = total = np.int64(0)
    for k in range(a, e):
        c = np.int64(counts[k])
        total += c
        n1 += c == 1
        n2 += c == 2
    return n1, n2, (e - a) - n1 - n2, total


@njit(cache=True, nogil=True, inline="always")
def _mark(touched, summary, c):
    touched[c >> 6] |= np.uint64(1) << np.uint64(c & 63)
    summary[c >> 12] |= np.uint64(1) << np.uint64((c >> 6) & 63)


@njit(cache=True, nogil=True)
def _add_row(mass, touched, summary, token_ids, counts, places, a, e, ones, label, scale, c1, c2, c3):
    """Add scale · count − the cut of the count's class to every token of a row but the label; returns the sum.

    a .. e are the row's entries, or, where places is not empty, the part of places that names them.
    """
    added = 0.0
    for i in range(a, e):
        k = i if places.size == 0 else np.int64(places[i])
        token = np.int64(token_ids[k])
        if token != label:
            c = 1 if ones else np.int64(counts[k])
            _mark(touched, summary, token)
            value = scale * c - (c1 if c == 1 else c2 if c == 2 else c3)
            mass[token] += value
            added += value
    return added


@njit(cache=True, nogil=True)
def _holds(places, a, e, k):
    """Whether places[a:e], ascending, holds k."""
    stop = e
    while a < e:
        middle = (a + e) >> 1
        if places[middle] < k:
            a = middle + 1
        else:
            e = middle
    return a < stop and places[a] == k


@njit(cache=True, nogil=True)
def _occurrences(next_tokens, documents, document, lo, hi, tally, ids, counts):
    """What follows a node inside one document: its tokens into ids, their counts; (how many, sum)."""
    first, last = documents.offsets[document], documents.offsets[document + 1]
    a = first + np.searchsorted(documents.ranks[first:last], lo)
    e = first + np.searchsorted(documents.ranks[first:last], hi)
    n = 0
    for i in range(a, e):
        c = np.int64(next_tokens[documents.ranks[i]])
        if tally[c] == 0:
            ids[n] = c
            n += 1
        tally[c] += 1
    for i in range(n):
        counts[i] = tally[ids[i]]
        tally[ids[i]] = 0
    return n, e - a


@njit(cache=True, nogil=True)
def _emit(mass, touched, summary, ids, sorting, kept_always, top_k, out_tokens, out_probs, used):
    """Write the top_k largest masses (and that of kept_always), ascending by token, and clear; (used, sum, cut)."""
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
    threshold, room, ties = -np.inf, top_k, n
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
            above += sorting[i] > threshold
        ties = room - above  # entries equal to the threshold that still fit
    cut, explicit = 0.0, 0.0
    for i in range(n):
        c = ids[i]
        value = mass[c]
        mass[c] = 0.0
        keep = n <= top_k or c == kept_always or (room > 0 and value > threshold)
        if not keep and room > 0 and value == threshold and ties > 0:
            keep = True
            ties -= 1
        if not keep:
            cut += value
        elif value != 0.0:
            out_tokens[used] = c
            out_probs[used] = value
            explicit += np.float64(out_probs[used])
            used += 1
    return used, explicit, cut


@njit(cache=True, nogil=True)
def interpolated_targets(
    rule,
    discounts,
    extra,
    kneser_ney,
    max_order,
    num_symbols,
    base,
    pull,
    root,
    chains,
    started,
    next_tokens,
    documents,
    rows,
    left,
    heavy,
    labels,
    leaves,
    top_k,
    out_offsets,
    out_tokens,
    out_probs,
    out_rest,
    out_cut,
    out_len,
    out_count,
):
    """Fill the targets of some positions; see `estimators`.

    discounts (O, 3), extra (O, ·): by order, the last one going on. kneser_ney: orders below the top count distinct
    left extensions. base (S + 1,): the base distribution in symbols, and of an unseen token. pull: what leaving one
    token out takes from the unigrams. root: what Kneser–Ney's base is made of, to leave one out of it: exact at the
    label, while the other tokens keep their proportions. chains, rows: the positions' nodes and their rows. left: for
    each stored row its depth, and for stored and own rows the left extensions of each continuation. heavy: totals of
    the stored rows, and of long ones the places of their largest counts: of such a row only these are made explicit,
    and the label. labels (Q): the token that follows, −1 where unknown; leaves: whether something is left out: the
    document documents.of[q], or where that is −1 the label's own occurrence. top_k 0: only the probability of the label
    is wanted, in out_rest. Returns the entries written.
    """
    mass = np.zeros(num_symbols, np.float64)
    touched = np.zeros((num_symbols >> 6) + 1, np.uint64)
    summary = np.zeros((num_symbols >> 12) + 1, np.uint64)
    room = num_symbols if top_k > 0 else 1
    sorting, ids = np.empty(room, np.float64), np.empty(room, np.int64)
    num_stored = rows.stored_offsets.size - 1
    none = heavy.top_places[:0]
    longest = max(1, documents.longest)
    gone_ids, gone_counts = np.empty(longest, np.int64), np.empty(longest, np.int64)
    tally = np.zeros(num_symbols if documents.longest > 0 else 1, np.int64)
    used = 0
    for q in range(labels.size):
        label = labels[q]
        out = leaves and 0 <= label < num_symbols
        document = documents.of[q] if leaves else np.int64(-1)
        remaining = 1.0  # what the deeper orders leave to the shallower
        of_label = cut = 0.0
        out_len[q] = -1
        deeper_own = np.int64(-1)  # the label's count one order deeper
        first_node, end_node = chains.offsets[q], chains.offsets[q + 1]
        for node in range(first_node, end_node):
            row = rows.numbers[node]
            stored = row < num_stored
            if stored:
                token_ids, counts, lefts = rows.stored_symbols, rows.stored_counts, left.stored
                a, e = np.int64(rows.stored_offsets[row]), np.int64(rows.stored_offsets[row + 1])
            else:
                token_ids, counts, lefts = rows.symbols, rows.counts, left.own
                a, e = rows.offsets[row - num_stored], rows.offsets[row - num_stored + 1]
            depth = chains.depth[node]
            shallower = chains.depth[node + 1] if node + 1 < end_node else np.int64(0)
            place = _place_in_row(token_ids, a, e, label) if label >= 0 else np.int64(-1)
            own = np.int64(counts[place]) if place >= 0 else np.int64(0)
            # what is left out of this row: tokens and how often, the label's share apart
            gone, num_gone = np.int64(0), 0
            if out and document < 0 and own > 0:
                gone, num_gone, gone_ids[0], gone_counts[0] = 1, 1, label, 1
                all_gone = np.int64(1)
            elif document >= 0:
                num_gone, all_gone = _occurrences(
                    next_tokens, documents, document, chains.lo[node], chains.hi[node], tally, gone_ids, gone_counts
                )
                for i in range(num_gone):
                    if gone_ids[i] == label:
                        gone = gone_counts[i]
            else:
                all_gone = np.int64(0)
            if chains.hi[node] - chains.lo[node] == all_gone:
                deeper_own = own
                continue
            # raw counts, after leaving out
            if stored:
                n1, n2 = np.int64(heavy.classes[row, 0]), np.int64(heavy.classes[row, 1])
                n3, total = e - a - n1 - n2, chains.hi[node] - chains.lo[node]
            else:
                n1, n2, n3, total = _classes(counts, a, e)
            total -= all_gone
            for i in range(num_gone):
                k = place if gone_ids[i] == label else _place_in_row(token_ids, a, e, gone_ids[i])
                c = np.int64(counts[k])
                rest = c - gone_counts[i]
                n1 += (rest == 1) - (c == 1)
                n2 += (rest == 2) - (c == 2)
                n3 += (rest > 2) - (c > 2)
            distinct = n1 + n2 + n3
            top = out_len[q] < 0
            if top:
                out_len[q] = depth - (started[q] if node == first_node else 0)
                out_count[q] = total
            before = remaining
            raw = raw1 = raw2 = raw3 = 0.0  # summed over the orders: scales, and discounts times scales
            one = one1 = 0.0
            lef = lef1 = lef2 = lef3 = 0.0
            left_gone = 0
            for order in range(depth, shallower, -1):
                as_raw = (
                    not kneser_ney
                    or order == max_order
                    or (top and order == depth and (max_order < 0 or (started[q] == 1 and node == first_node)))
                )
                if as_raw:
                    d1, d2, d3, s, back = weigh(rule, discounts, extra, order, total, n1, n2, n3)
                    s *= remaining
                    raw += s
                    raw1 += s * d1
                    raw2 += s * d2
                    raw3 += s * d3
                elif order < depth or (stored and np.int64(left.depth[row]) != depth):
                    d1, d2, d3, s, back = weigh(rule, discounts, extra, order, distinct, distinct, 0, 0)
                    s *= remaining
                    one += s
                    one1 += s * d1
                else:
                    if stored:
                        m1, m2 = np.int64(heavy.left_classes[row, 0]), np.int64(heavy.left_classes[row, 1])
                        m3, left_total = e - a - m1 - m2, np.int64(heavy.left_classes[row, 2])
                    else:
                        m1, m2, m3, left_total = _classes(lefts, a, e)
                    # the last occurrence after its symbol, or fewer occurrences than symbols are left
                    if gone == 1 and (deeper_own == 1 or np.int64(lefts[place]) > own - 1):
                        left_gone = 1
                    if left_gone == 1:
                        x = np.int64(lefts[place])
                        left_total -= 1
                        m1 += (x == 2) - (x == 1)
                        m2 += (x == 3) - (x == 2)
                        m3 -= x == 3
                    d1, d2, d3, s, back = weigh(rule, discounts, extra, order, left_total, m1, m2, m3)
                    s *= remaining
                    lef += s
                    lef1 += s * d1
                    lef2 += s * d2
                    lef3 += s * d3
                remaining *= back
                if remaining <= 0.0:
                    break
            deeper_own = own
            here = 0.0  # the label's part
            if own > gone:
                c = own - gone
                here += raw * c - (raw1 if c == 1 else raw2 if c == 2 else raw3) + one - one1
                if lef > 0.0 and np.int64(lefts[place]) > left_gone:
                    c = np.int64(lefts[place]) - left_gone
                    here += lef * c - (lef1 if c == 1 else lef2 if c == 2 else lef3)
            of_label += here
            if top_k > 0:
                if here != 0.0:
                    _mark(touched, summary, label)
                    mass[label] += here
                places, p, r = none, a, e
                if stored and heavy.top_offsets[row + 1] > heavy.top_offsets[row]:
                    places, p, r = heavy.top_places, heavy.top_offsets[row], heavy.top_offsets[row + 1]
                added = here
                if raw > 0.0:
                    added += _add_row(
                        mass, touched, summary, token_ids, counts, places, p, r, False, label, raw, raw1, raw2, raw3
                    )
                if one > 0.0:
                    added += _add_row(
                        mass, touched, summary, token_ids, counts, places, p, r, True, label, one, one1, 0.0, 0.0
                    )
                if lef > 0.0:
                    added += _add_row(
                        mass, touched, summary, token_ids, lefts, places, p, r, False, label, lef, lef1, lef2, lef3
                    )
                for i in range(num_gone):  # the others that are left out were added whole
                    if gone_ids[i] != label:
                        k = _place_in_row(token_ids, a, e, gone_ids[i])
                        if places.size == 0 or _holds(places, p, r, k):
                            c = np.int64(counts[k])
                            change = -(raw * c - (raw1 if c == 1 else raw2 if c == 2 else raw3))
                            c -= gone_counts[i]
                            if c > 0:
                                change += raw * c - (raw1 if c == 1 else raw2 if c == 2 else raw3)
                            mass[gone_ids[i]] += change
                            added += change
                if places.size > 0:
                    cut += max(0.0, before - remaining - added)
            if remaining <= 0.0 or rule == MAXIMUM or rule == ADD_K:
                break
        if out_len[q] < 0:
            out_len[q] = 0
            out_count[q] = -1  # all of the corpus: the caller knows how much that is
        # the base without the label's occurrence is grown · base − drop at the label
        grown, drop = 1.0 + pull, pull
        if not out:
            grown, drop = 1.0, 0.0
        elif document >= 0:
            first, last = documents.offsets[document], documents.offsets[document + 1]
            gone = np.searchsorted(documents.tokens[first:last], label, "right")
            gone -= np.searchsorted(documents.tokens[first:last], label)
            # pull = 1 / (N + T_0): the base, counted without the document
            kept = 1.0 - (last - first) * pull
            if kept > 0.0 and base[label] < 1.0:
                without = (base[label] - gone * pull) / kept
                grown = (1.0 - without) / (1.0 - base[label])
                drop = grown * base[label] - without
            else:  # the document is the corpus
                grown, drop = 1.0, 0.0
        elif kneser_ney:
            count = np.int64(root.counts[label])
            others = np.int64(root.occurrences[label]) - 1
            if (max_order != 0 and deeper_own != 1 and count <= others) or base[label] >= 1.0:
                grown, drop = 1.0, 0.0
            else:
                without = root.uniform
                if root.total > 1:
                    taken_off = root_cut(discounts, count - 1)
                    cuts = root.cuts + taken_off - root_cut(discounts, count)
                    without = (count - 1 - taken_off + cuts * root.uniform) / (root.total - 1)
                grown = (1.0 - without) / (1.0 - base[label])
                drop = grown * base[label] - without
        taken = remaining * drop
        if top_k == 0:
            out_rest[q] = of_label - taken + remaining * grown * base[label] if label >= 0 else 0.0
            continue
        if taken != 0.0:
            _mark(touched, summary, label)
            mass[label] -= taken
        keep = label if taken != 0.0 else np.int64(-1)
        used, explicit, more = _emit(mass, touched, summary, ids, sorting, keep, top_k, out_tokens, out_probs, used)
        out_cut[q] = cut + more
        out_rest[q] = max(0.0, 1.0 - explicit)
        out_offsets[q + 1] = used
    return used
