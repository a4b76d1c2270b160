"""Estimators with exclusion: a token's probability is set by the longest context that has seen it.

Katz's backoff, stupid backoff, PPM-C, and add-k at the longest match. From the deepest context of a position to the
shallowest, each shares out the mass that its longer ones left: its tokens that none of them has seen take theirs, the
rest goes on, in the end to the base distribution, among the tokens that no context has seen.

    KATZ            w takes d(c(w)) · c(w), what the discounts saved goes on
    PPM_C           w takes c(w) of the new tokens' counts, as many as there are new tokens go on
    STUPID_BACKOFF  w takes c(w) / c, α of the mass goes on for each order, whatever was taken; then all by their sum
    ADD_K           w takes c(w) + k, k for every other token goes on, and the longest match is the only context

A longer context's tokens are among those of a shorter one. So what is new in a context are its sums less the sums of
its counts over the longer one's tokens. For stored rows both are kept (`fill_row_sums`): the label's probability needs
no row to be read. Leaving out changes these sums for the tokens left out only.

All sums are of whole numbers, and what is left is never the difference of two nearly equal masses. Where less than
LEAST_MASS is left it goes to the base at once (`rules`), but not for the raw scores of stupid backoff.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.exclusion_sums import (
    CLASSES,
    DISTINCT,
    SUMS,
    TOTAL,
    count_ranks,
    document_loss,
    shift,
    sums_without_document,
)
from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.label_places import narrowest_row
from corpus_index._kernels.nodes import node_around, parent_depth, symbol_of
from corpus_index._kernels.rows import find_row, first_at_least, place_in_row
from corpus_index._kernels.rules import ADD_K, KATZ, LEAST_MASS, PPM_C, STUPID_BACKOFF
from corpus_index._kernels.tallies import own_of, read, read_others
from corpus_index._kernels.target_arrays import HI, LO, NO_PARENT, OWN_DEPTH, PARENT, PARENT_DEPTH

LARGEST_REST = 4.0  # beyond it float32 couldn't hold `p − rest · base` well enough for a sum of 1


class Flat(NamedTuple):
    """Targets to be filled, or (offsets of size 0) only the labels' probabilities, in rest."""

    offsets: np.ndarray
    tokens: np.ndarray
    probs: np.ndarray
    rest: np.ndarray
    cut: np.ndarray
    match_len: np.ndarray
    context_count: np.ndarray


@kernel()
def _share(arrays, order, mass, sums, new, worth):
    """(unit, taken, mass left) of a context: a new token with a count of x takes unit · worth[x], beyond 5 unit · x.

    sums, new: of all its counts, and of those of tokens that no longer context has seen. taken: by all new tokens.
    """
    rule = arrays.rule
    for x in range(1, CLASSES + 1):
        worth[x] = x
    if rule == STUPID_BACKOFF:
        unit = mass / sums[TOTAL]
        return unit, unit * new[TOTAL], mass
    if rule == ADD_K:
        unit = mass / (sums[TOTAL] + arrays.added * arrays.vocab_size)
        taken = unit * (sums[TOTAL] + arrays.added * sums[DISTINCT])
        return unit, taken, unit * arrays.added * (arrays.vocab_size - sums[DISTINCT])
    if new[DISTINCT] == 0 and (rule == PPM_C or sums[DISTINCT] < arrays.vocab_size):
        return 0.0, 0.0, mass
    kept = float(new[TOTAL])
    left = float(new[DISTINCT])
    if rule == KATZ:
        at = min(order, arrays.ratios.shape[0] - 1)
        left = 0.0
        for x in range(1, CLASSES + 1):
            worth[x] = arrays.ratios[at, x - 1] * x
            left += (x - worth[x]) * sums[x]
            kept -= (x - worth[x]) * new[x]
        if left == 0.0:
            left = 1.0
    if sums[DISTINCT] == arrays.vocab_size:
        left = 0.0
    if kept + left <= 0.0:
        return 0.0, 0.0, 0.0
    unit = mass / (kept + left)
    return unit, unit * kept, unit * left


@kernel()
def _after(mass, alpha, orders, raw):
    """What stupid backoff passes on after so many orders: as the scores, or not much below LEAST_MASS."""
    if raw:
        return mass * alpha**orders
    for _ in range(orders):
        if mass < LEAST_MASS:
            break
        mass *= alpha
    return mass


@kernel(inline="always")
def _worth(worth, x):
    """What a count is worth."""
    return worth[x] if x <= CLASSES else float(x)


@kernel()
def _sift(tokens, masses, i, n):
    """Let entry i sink to its place in a heap of n, the least on top."""
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and masses[child + 1] < masses[child]:
            child += 1
        if masses[child] >= masses[i]:
            return
        tokens[i], tokens[child] = tokens[child], tokens[i]
        masses[i], masses[child] = masses[child], masses[i]
        i = child


@kernel(inline="always")
def _offer(tokens, masses, n, top_k, token, mass):
    """Keep a token if it is among the top_k largest so far: a list, and a heap once it is full; returns its size."""
    if n < top_k:
        tokens[n], masses[n] = token, mass
        n += 1
        if n == top_k:
            for i in range(n // 2 - 1, -1, -1):
                _sift(tokens, masses, i, n)
    elif mass > masses[0]:
        tokens[0], masses[0] = token, mass
        _sift(tokens, masses, 0, n)
    return n


@kernel(allocates=True)
def write_flat(
    arrays,  # ExclusionArrays
    scratch,  # ExclusionScratch
    n,  # int64, tokens in scratch.best_tokens
    label,  # int64, a token that is always listed; −1: none
    label_mass,  # float64
    label_seen,  # bool, whether a context has seen it
    covered,  # int64, tokens that the contexts have seen
    rest_mass,  # float64, of all others
    explicit,  # float64, of those seen
    top_k,  # int64, tokens at most
    top_p,  # float64, of their mass at most; 1: all
    q,  # int64, the position
    used,  # int64, pairs of `out` in use
    out,  # Flat
):
    """A position's pairs, from its n best tokens and, if it isn't −1, the label; returns the end.

    covered, explicit: how many tokens the contexts have seen, and their mass; rest_mass: that of all others. What isn't
    listed shares what is left in the base's proportions, and each listed token's pair is what the base lacks of it.
    """
    tokens, masses, base = scratch.best_tokens, scratch.best_masses, arrays.base
    listed = label_mass if label >= 0 else 0.0
    size = n
    if top_p < 1.0:
        order = np.argsort(-masses[:n])
        size = 0
        while size < n and listed < top_p:
            listed += masses[order[size]]
            size += 1
        chosen, chosen_masses = tokens[order[:size]], masses[order[:size]]
        tokens[:size] = chosen
        masses[:size] = chosen_masses
    kept = size + (label >= 0 and label_seen)
    listed = label_mass if label >= 0 and label_seen else 0.0
    weight = 0.0
    for i in range(size):
        listed += masses[i]
        weight += arrays.unigrams[tokens[i]] + arrays.added
    if label >= 0:
        tokens[size], masses[size] = label, label_mass
        size += 1
        weight += arrays.unigrams[label] + arrays.added
        if not label_seen:
            rest_mass = max(0.0, rest_mass - label_mass)
    cut = max(0.0, explicit - listed) if kept < covered else 0.0
    rest_mass += cut
    everything = arrays.total + arrays.added * arrays.vocab_size
    left = everything - weight if size < arrays.vocab_size else 0.0
    share = rest_mass / left if left > 0.0 else 0.0
    rest = share * everything
    order = np.argsort(tokens[:size])
    chosen, chosen_masses = tokens[order], masses[order]
    if rest > LARGEST_REST and top_k >= arrays.vocab_size == arrays.unigrams.size:
        i = 0
        for c in range(arrays.vocab_size):
            mass = share * (arrays.unigrams[c] + arrays.added)
            if i < size and chosen[i] == c:
                mass = chosen_masses[i]
                i += 1
            out.tokens[used], out.probs[used] = c, mass
            used += 1
        rest = 0.0
    else:
        total = 0.0
        for i in range(size):
            of_base = np.float32(rest) * base[chosen[i]]
            pair = np.float32(chosen_masses[i] - rest * np.float64(base[chosen[i]]))
            pair = max(pair, np.nextafter(-of_base, np.float32(1.0)))  # their sum stays above 0 when it is rounded
            out.tokens[used], out.probs[used] = chosen[i], pair
            total += np.float64(pair)
            used += 1
        if rest > LARGEST_REST:
            rest = max(0.0, 1.0 - total)
    out.rest[q], out.cut[q] = rest, cut
    return used


@kernel(forceinline=True)
def _light_counts(
    text,  # TextArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    heavy,  # HeavyNodes
    documents,  # Documents
    document,  # int64, which of them is left out; −1: none
    a,  # int64, the node's ranks a … e − 1
    e,
    depth,  # int64, its symbols
    read_a,  # int64, ranks read_a … read_e − 1 are read already
    read_e,
    tally,  # (S,) uint32, in and out
    tokens,  # (S + 1,) int64, in and out
    n,  # int64, tokens so far
):
    """Tally the continuations of a node without a stored row; returns the number of tokens."""
    doc_a = doc_e = begin = end = np.int64(0)
    if document >= 0:
        doc_a, doc_e = documents.first[document], documents.last[document]
        begin, end = documents.begins[document], documents.ends[document]
    if e - a > heavy.light and depth < heavy.deepest:  # all continue alike
        g = first_at_least(documents.ranks, doc_a, doc_e, a)
        g_end = first_at_least(documents.ranks, doc_a, doc_e, e)
        c = symbol_of(next_tokens, a, tally)
        tokens[0] = c
        tally[c] = (e - a) - (g_end - g)
        return np.int64(1) if tally[c] > 0 else np.int64(0)
    if document >= 0:
        own_ranks = own_of(text, text.order, documents, doc_a, doc_e)
        n = read_others(next_tokens, own_ranks, a, read_a, begin, end, tally, tokens, n)
        return read_others(next_tokens, own_ranks, read_e, e, begin, end, tally, tokens, n)
    n = read(next_tokens, a, read_a, tally, tokens, n)
    return read(next_tokens, read_e, e, tally, tokens, n)


@kernel(forceinline=True)
def _row_counts(
    heavy,  # HeavyNodes
    arrays,  # ExclusionArrays
    documents,  # Documents
    document,  # int64, which of them is left out; −1: none
    row,  # int64, a stored row
    without,  # int64, a token one occurrence of which is left out; −1: none
    of_row,  # int64, its count in the row
    scratch,  # ExclusionScratch; gone and gone_tokens, out: what is left out
    both,  # (2, SUMS) int64, out: sums of the row, and of its parent's counts of its tokens
):
    """Fill the sums of a stored row without what is left out; returns how many tokens that changes."""
    table, gone = heavy.table, scratch.gone
    if document >= 0:
        memo = row & (scratch.memo_keys.shape[0] - 1)
        sums = scratch.memo_sums[memo]
        if scratch.memo_keys[memo, 0] != row or scratch.memo_keys[memo, 1] != document:
            for i in range(SUMS):
                sums[0, i], sums[1, i] = arrays.row_sums[row, 0, i], arrays.row_sums[row, 1, i]
            sums_without_document(heavy, documents, document, arrays.occurrences, scratch, row, sums)
            scratch.memo_keys[memo, 0], scratch.memo_keys[memo, 1] = row, document
        for i in range(SUMS):
            both[0, i], both[1, i] = sums[0, i], sums[1, i]
        first, last = documents.first[document], documents.last[document]
        lo, hi = np.int64(table[row, LO]), np.int64(table[row, HI])
        return count_ranks(documents.following, documents.ranks, lo, hi, first, last, gone, scratch.gone_tokens)
    for i in range(SUMS):
        both[0, i], both[1, i] = arrays.row_sums[row, 0, i], arrays.row_sums[row, 1, i]
    if without < 0:
        return np.int64(0)
    scratch.gone_tokens[0] = without
    gone[without] = 1
    shift(both[0], of_row, of_row - 1)
    above, parent = np.int64(arrays.occurrences[without]), np.int64(table[row, PARENT])
    if parent != NO_PARENT:
        k = place_in_row(heavy.tokens, heavy.offsets[parent], heavy.offsets[parent + 1], without)
        above = np.int64(heavy.counts[k])
    shift(both[1], above, above - 1 if of_row > 1 else 0)
    return np.int64(1)


@kernel()
def _all_counts(
    arrays,  # ExclusionArrays
    documents,  # Documents
    document,  # int64, which of them is left out; −1: none
    label,  # int64
    out_self,  # bool, whether the label's own occurrence is left out
    mass,  # float64, to be shared out
    always,  # int64, a token that is listed anyway; −1: none
    targets,  # bool, whether tokens are listed
    room,  # int64, tokens to list at most
    best,  # int64, tokens listed so far
    scratch,  # ExclusionScratch
    own,  # (SUMS,) int64, scratch
    worth,  # (CLASSES + 1,) float64, scratch
):
    """Add-k where no context matches: all tokens of the corpus over a uniform base.

    Returns (tokens seen, their mass, mass left, the label's, whether it is among them, tokens listed).
    """
    gone = scratch.gone
    if document >= 0:
        for i in range(documents.token_offsets[document], documents.token_offsets[document + 1]):
            gone[documents.tokens[i]] = documents.lost[i]
    elif out_self:
        gone[label] = 1
    own[:] = 0
    for c in range(arrays.occurrences.size):
        x = np.int64(arrays.occurrences[c]) - np.int64(gone[c])
        if x > 0:
            shift(own, 0, x)
    unit, explicit, mass = _share(arrays, 0, mass, own, own, worth)
    of_label, label_seen = 0.0, False
    for c in range(arrays.occurrences.size):
        x = np.int64(arrays.occurrences[c]) - np.int64(gone[c])
        if x > 0:
            share = unit * (x + arrays.added)
            if c == label:
                of_label, label_seen = share, True
            if targets and c != always:
                best = _offer(scratch.best_tokens, scratch.best_masses, best, room, c, share)
    if document >= 0:
        for i in range(documents.token_offsets[document], documents.token_offsets[document + 1]):
            gone[documents.tokens[i]] = 0
    elif out_self:
        gone[label] = 0
    return own[DISTINCT], explicit, mass, of_label, label_seen, best


@kernel(forceinline=True)
def _base_units(
    arrays,  # ExclusionArrays
    documents,  # Documents
    document,  # int64, which of them is left out; −1: none
    label,  # int64
    out_self,  # bool, whether the label's own occurrence is left out
    tokens,  # (S + 1,) int64, those of the contexts
    n,  # int64, how many
    seen,  # (S,) int64, the number of the last position that saw each token
    number,  # int64, this position's
    units,  # float64, counts of the base
):
    """The counts of the base without those of the tokens that a context has seen."""
    for j in range(n):
        c = tokens[j]
        if seen[c] == number:
            units -= arrays.unigrams[c]
            if document >= 0:
                units += document_loss(documents, document, c)
            elif out_self and c == label:
                units += 1.0
    return units


@kernel()
def exclusion_targets(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    arrays,  # ExclusionArrays
    heavy,  # HeavyNodes
    lo,  # (Q,) int64, first rank of each position's match
    hi,  # (Q,) int64, and the one after its last
    depths,  # (Q,) int32, symbols of it
    started,  # (Q,) int32, 1 where it includes its document's start
    labels,  # (Q,) int64, the symbol that follows; −1: unknown, S: the corpus lacks it
    leaves,  # bool, whether the label's own occurrence, or its document, is left out
    documents,  # Documents
    scratch,  # ExclusionScratch
    top_k,  # int64, tokens at most
    top_p,  # float64, of their mass at most; 1: all
    ahead,  # int64, entries between asking for memory and reading it
    out,  # Flat
):
    """Fill the targets of some positions; returns the first position that had no room."""
    text, nodes = index.text, index.nodes
    rule, unigrams = arrays.rule, arrays.unigrams
    tally, seen, gone, tokens = scratch.tally, scratch.seen, scratch.gone, scratch.tokens
    best_tokens, best_masses = scratch.best_tokens, scratch.best_masses
    num_symbols, vocab_size = tally.size, arrays.vocab_size
    targets = out.offsets.size > 0
    own, new, both, worth = scratch.sums[0], scratch.sums[1], scratch.sums[2:], scratch.worth
    used = np.int64(0)
    scratch.memo_keys[:] = -1
    if targets:
        out.offsets[0] = 0
    for q in range(lo.size):
        if q + ahead < lo.size:
            prefetch(nodes.common, lo[q + ahead])
            prefetch(nodes.common, hi[q + ahead])
            prefetch(next_tokens, lo[q + ahead])
        if targets and used + top_k + 1 > out.tokens.size:
            return q
        scratch.numbers[0] += 1
        number = scratch.numbers[0]
        a, e, depth = lo[q], hi[q], np.int64(depths[q])
        label = labels[q]
        known = 0 <= label < num_symbols
        out_self = leaves and known and documents.of[q] < 0
        document = documents.of[q] if leaves and known else np.int64(-1)
        always = label if leaves and known else np.int64(-1)
        room = top_k - (always >= 0)
        mass, explicit, of_label = 1.0, 0.0, 0.0
        label_seen, done, top = False, False, True
        length, count = np.int64(0), np.int64(-1)
        n = best = np.int64(0)
        read_a = read_e = a
        row = around = below = np.int64(-1)
        at_match = True
        # light nodes
        while depth > 0:
            if e - a > heavy.light:
                row = find_row(heavy.bounds, heavy.directory, heavy.shift, a, e)
                if row >= 0:
                    break
            n = _light_counts(
                text, next_tokens, heavy, documents, document, a, e, depth, read_a, read_e, tally, tokens, n
            )
            read_a, read_e = a, e
            up = parent_depth(text, nodes, a, e, depth)
            own[:] = 0
            new[:] = 0
            for j in range(n):
                c = tokens[j]
                x = np.int64(tally[c]) - (out_self and c == label)
                if x > 0:
                    shift(own, 0, x)
                    if seen[c] != number:
                        shift(new, 0, x)
            if own[TOTAL] > 0:
                if top:
                    length, count = depth - (at_match and started[q] == 1), own[TOTAL]
                top = False
                unit, taken, mass = _share(arrays, depth, mass, own, new, worth)
                explicit += taken
                plus = arrays.added if rule == ADD_K else 0.0
                for j in range(n):
                    c = tokens[j]
                    x = np.int64(tally[c]) - (out_self and c == label)
                    if x > 0 and seen[c] != number:
                        seen[c] = number
                        share = unit * (_worth(worth, x) + plus)
                        if c == label:
                            of_label, label_seen = share, True
                        if targets and c != always:
                            best = _offer(best_tokens, best_masses, best, room, c, share)
                if rule == STUPID_BACKOFF:
                    mass = _after(mass, arrays.alpha, depth - up, arrays.raw)
                if rule == ADD_K or (label_seen and not targets and (rule != STUPID_BACKOFF or arrays.raw)):
                    done = True
                    break
            at_match = False
            if mass < LEAST_MASS and not arrays.raw:
                up = np.int64(0)
            depth = up
            if up == 0:
                break
            if around < 0:
                around = narrowest_row(heavy.table, heavy.narrowest, a, e)
            if around != NO_PARENT and np.int64(heavy.table[around, OWN_DEPTH]) == up:
                row = around
                break
            a, e = node_around(text, nodes, a, e, up)
        covered = own[DISTINCT] if not top else np.int64(0)
        # stored rows
        while depth > 0 and row >= 0 and not done:
            table = heavy.table
            up, parent = np.int64(table[row, PARENT_DEPTH]), np.int64(table[row, PARENT])
            start, stop = heavy.offsets[row], heavy.offsets[row + 1]
            place = place_in_row(heavy.tokens, start, stop, label) if known else np.int64(-1)
            of_row = np.int64(heavy.counts[place]) if place >= 0 else np.int64(0)
            # what is new here: all, but for the longer contexts' tokens
            for i in range(SUMS):
                new[i] = both[1, i] if below >= 0 else 0
            num_gone = _row_counts(
                heavy,
                arrays,
                documents,
                document,
                row,
                label if out_self and of_row > 0 else np.int64(-1),
                of_row,
                scratch,
                both,
            )
            if below < 0:
                for j in range(n):
                    c = tokens[j]
                    if seen[c] == number:
                        k = place_in_row(heavy.tokens, start, stop, c)
                        shift(new, 0, np.int64(heavy.counts[k]) - np.int64(gone[c]))
            for i in range(SUMS):
                own[i] = both[0, i]
                new[i] = own[i] - new[i]
            if own[TOTAL] > 0:
                if top:
                    length, count = depth - (at_match and started[q] == 1), own[TOTAL]
                top = False
                unit, taken, mass = _share(arrays, depth, mass, own, new, worth)
                explicit += taken
                plus = arrays.added if rule == ADD_K else 0.0
                x = of_row - np.int64(gone[label]) if known else np.int64(0)
                if x > 0 and not label_seen:
                    of_label, label_seen = unit * (_worth(worth, x) + plus), True
                if targets and new[DISTINCT] > 0:
                    for k in range(start, stop):
                        c = np.int64(heavy.tokens[k])
                        if seen[c] != number:
                            x = np.int64(heavy.counts[k]) - np.int64(gone[c])
                            if x > 0:
                                seen[c] = number
                                if c != always:
                                    share = unit * (_worth(worth, x) + plus)
                                    best = _offer(best_tokens, best_masses, best, room, c, share)
                if rule == STUPID_BACKOFF:
                    mass = _after(mass, arrays.alpha, depth - up, arrays.raw)
                covered = own[DISTINCT]
                if rule == ADD_K or (label_seen and not targets and (rule != STUPID_BACKOFF or arrays.raw)):
                    done = True
            for i in range(num_gone):
                gone[scratch.gone_tokens[i]] = 0
            below = row
            at_match = False
            if parent == NO_PARENT or (mass < LEAST_MASS and not arrays.raw):
                break
            row, depth = parent, up
        if top:
            length, count = np.int64(0), np.int64(-1)  # all of the corpus: the caller knows how much that is
        out.match_len[q] = length
        out.context_count[q] = count
        lost = np.int64(0)  # of the corpus
        if document >= 0:
            lost = documents.last[document] - documents.first[document]
        elif out_self:
            lost = np.int64(1)
        lost_label = np.int64(0)
        if known and lost > 0:
            lost_label = document_loss(documents, document, label) if document >= 0 else np.int64(1)
        if top and arrays.whole:  # add-k, and the base is uniform: all tokens of the corpus
            covered, explicit, mass, of_label, label_seen, best = _all_counts(
                arrays, documents, document, label, out_self, mass, always, targets, room, best, scratch, own, worth
            )
        # the base, among the tokens that no context has seen
        uniform = arrays.total == 0
        units = everything = float(arrays.total - (0 if uniform else lost))
        if not uniform:
            if below >= 0:
                units -= both[1, TOTAL]
            else:
                units = _base_units(arrays, documents, document, label, out_self, tokens, n, seen, number, units)
        units += arrays.added * (vocab_size - covered)
        everything += arrays.added * vocab_size
        scale = 1.0
        share = mass / units if units > 0.0 else 0.0
        if rule == STUPID_BACKOFF:
            share = mass / everything if everything > 0.0 else 0.0
            mass = share * units
            if not arrays.raw:
                scale = 1.0 / (explicit + mass)
        if label >= 0 and not label_seen:
            own_units = arrays.added
            if known and not uniform:
                own_units += unigrams[label] - lost_label
            of_label = share * own_units
        for j in range(n):
            tally[tokens[j]] = 0
        if not targets:
            out.rest[q] = of_label * scale
            continue
        for i in range(best):
            best_masses[i] *= scale
        used = write_flat(
            arrays,
            scratch,
            best,
            always,
            of_label * scale,
            label_seen,
            covered,
            mass * scale,
            explicit * scale,
            top_k,
            top_p,
            q,
            used,
            out,
        )
        out.offsets[q + 1] = used
    return lo.size
