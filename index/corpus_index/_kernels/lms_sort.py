"""Sorting the suffixes of a large text on several threads: the LMS suffixes by their symbols, the others induced.

What it computes is what `suffix_sort.sort_suffixes` computes, with the same two scans at the end (`induce_l`,
`induce_s`). Those need the LMS suffixes in order (a third of a text). Induced sorting finds that order in two more
scans and a recursion, one thread, a cache miss at every step. Here they are put into buckets by their first symbol, and
each bucket is sorted by keys of several symbols, 64 bits, in rounds; a thread takes some buckets at a time.

Long repeats can't be sorted so. Suffixes that share `LEAST` symbols, and the whole of their LMS substring, stay *tied*:
they get one name, and the names in text order are sorted by `sort_suffixes` as in the recursion of SA-IS. But only tied
ones, each run of them with the one suffix after it: no comparison goes on beyond a name that no other has. On text that
is a fifth of all; on a corpus that is one document many times it is all, and this is SA-IS again.

Cost: O(N log N), the logarithm from Shell's sort of at most 200 keys. Key rounds beyond LEAST go on only as far as an
LMS substring reaches, and these add up to N.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.suffix_sort import AHEAD, induce_l, induce_s, sort_suffixes

LEAST = 24  # symbols; twice as many leave almost as many tied, half as many half as many again
_CHUNK = 1 << 16  # suffixes that a thread takes at a time, unless one bucket has more
_FEW = 200  # fewer are sorted in place
_ALIKE = 32  # suffixes that a key doesn't tell apart are tied at once if they can be: a repeat that repeats
_DIGITS = 8 * 256


@kernel()
def _is_smaller(text, i):
    """Whether suffix i is smaller than the one after it (of type S)."""
    n = text.size
    j = i
    while j + 1 < n and text[j + 1] == text[j]:
        j += 1
    return j + 1 < n and text[j + 1] > text[j]


@kernel()
def count_lms(text, counts, lms_counts, lo, hi):
    """Add how often each symbol occurs at lo .. hi−1, and how often it begins an LMS suffix."""
    is_s = _is_smaller(text, hi - 1)
    here = np.int64(text[hi - 1])
    for i in range(hi - 1, lo - 1, -1):
        counts[here] += 1
        if i == 0:
            break
        before = np.int64(text[i - 1])
        if before > here:
            if is_s:
                lms_counts[here] += 1
            is_s = False
        elif before < here:
            is_s = True
        here = before


@kernel()
def list_lms(text, ends, lms, lo, hi):
    """Write the LMS suffixes at lo .. hi−1 into their buckets, from each end on downwards."""
    is_s = _is_smaller(text, hi - 1)
    here = np.int64(text[hi - 1])
    for i in range(hi - 1, max(lo, 1) - 1, -1):
        before = np.int64(text[i - 1])
        if before > here:
            if is_s:
                place = np.int64(ends[here]) - 1
                ends[here] = place
                lms[place] = i
            is_s = False
        elif before < here:
            is_s = True
        here = before


@kernel()
def _packed(text, i, width, bits):
    """The symbols i … i + width − 1 as one number that is ordered as they are; 0 for those behind the end."""
    key = (np.int64(text[i]) if i < text.size else 0) - (np.int64(1) << (bits - 1))
    if i + width <= text.size:
        for k in range(i + 1, i + width):
            key = (key << bits) | np.int64(text[k])
    else:
        for k in range(i + 1, i + width):
            key = (key << bits) | (np.int64(text[k]) if k < text.size else 0)
    return key


@kernel()
def _all_equal(keys, a, e):
    """Whether keys[a:e] are all the same."""
    i = a + 1
    while i < e and keys[i] == keys[a]:
        i += 1
    return i >= e


@kernel()
def _sort_few(keys, values, a, e):
    """Sort both by keys[a:e], in place (Shell 1959)."""
    gap = np.int64(1)
    while 9 * gap < e - a:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(a + gap, e):
            key, value = keys[i], values[i]
            j = i - gap
            while j >= a and keys[j] > key:
                keys[j + gap] = keys[j]
                values[j + gap] = values[j]
                j -= gap
            keys[j + gap] = key
            values[j + gap] = value
        gap //= 3


@kernel()
def _sort_many(keys, values, a, e, other_keys, other_values, digits):
    """Sort both by keys[a:e], byte by byte; a byte that all share costs nothing."""
    digits[:] = 0
    for i in range(a, e):
        for b in range(8):
            digits[(b << 8) + ((keys[i] >> (8 * b)) & 255)] += 1
    n = e - a
    sample = keys[a]
    there = False  # whether they are among the others now
    for b in range(8):
        base, shift = b << 8, 8 * b
        if digits[base + ((sample >> shift) & 255)] == n:
            continue
        place = np.int64(0)
        for k in range(256):
            digit = base + (k ^ 128 if b == 7 else k)  # the top byte has the sign
            count = digits[digit]
            digits[digit] = place
            place += count
        for i in range(n):
            key = other_keys[i] if there else keys[a + i]
            value = other_values[i] if there else values[a + i]
            digit = base + ((key >> shift) & 255)
            place = digits[digit]
            digits[digit] = place + 1
            if there:
                keys[a + place] = key
                values[a + place] = value
            else:
                other_keys[place] = key
                other_values[place] = value
        there = not there
    if there:
        for i in range(n):
            keys[a + i] = other_keys[i]
            values[a + i] = other_values[i]


@kernel()
def _ended_first(values, a, e, last):
    """Move values from last on, whose text ends, to the front of values[a:e], the largest first; how many there are."""
    ended = 0
    for i in range(a, e):
        value = values[i]
        if value >= last:
            ended += 1
            j = i
            while j > a and values[j - 1] < value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
    return ended


@kernel()
def _covers(text, p, depth):
    """Whether depth symbols from LMS suffix p on tell where the next LMS suffix begins."""
    end = min(p + depth, text.size) - 1
    i = p
    while i < end and text[i] <= text[i + 1]:
        i += 1
    while i < end and text[i] >= text[i + 1]:
        i += 1
    return i < end


@kernel()
def sort_groups(
    text,  # (n,), symbols
    values,  # (b,) int32 or int64, suffixes, group by group; sorted in each; ~suffix where tied to the one before
    starts,  # (g,) int64, groups of suffixes that share a symbol and no more is known of
    ends,  # (g,) int64
    keys,  # (b,) int64, scratch
    lists,  # (4, b / 2 + g) int32 or int64, scratch
    other_keys,  # (largest group,) int64, scratch
    other_values,  # (largest group,) as values, scratch
    digits,  # (8 · 256,) int64, scratch
    width,  # int64, symbols of a key
    bits,  # int64, of a symbol
    least,  # int64, symbols that tied suffixes share
    ahead,  # int64, suffixes between asking for memory and reading it
):
    """Sort groups of LMS suffixes by their symbols, in rounds of one key each, until each is alone or tied."""
    num_groups = 0
    for g in range(starts.size):
        if ends[g] - starts[g] > 1:
            lists[0, num_groups], lists[1, num_groups] = starts[g], ends[g]
            num_groups += 1
    depth, check, now = np.int64(1), np.int64(least), 0
    while num_groups > 0:
        first, end = lists[now], lists[now + 1]
        then = 2 - now
        first_then, end_then = lists[then], lists[then + 1]
        g_ahead, i_ahead, lead = 0, np.int64(first[0]), 0
        for g in range(num_groups):
            for i in range(np.int64(first[g]), np.int64(end[g])):
                while g_ahead < num_groups and lead <= ahead:
                    prefetch(text, np.int64(values[i_ahead]) + depth)
                    lead += 1
                    i_ahead += 1
                    if i_ahead == end[g_ahead]:
                        g_ahead += 1
                        if g_ahead < num_groups:
                            i_ahead = np.int64(first[g_ahead])
                lead -= 1
                keys[i] = _packed(text, np.int64(values[i]) + depth, width, bits)
        found = 0
        for g in range(num_groups):
            a, e = np.int64(first[g]), np.int64(end[g])
            if _all_equal(keys, a, e):
                if e - a >= _ALIKE and _covers(text, np.int64(values[a]), depth):
                    for i in range(a + 1, e):
                        values[i] = ~values[i]
                    continue
            elif e - a < _FEW:
                _sort_few(keys, values, a, e)
            else:
                _sort_many(keys, values, a, e, other_keys, other_values, digits)
            while a < e - 1:
                z = a + 1
                while z < e and keys[z] == keys[a]:
                    z += 1
                if z - a > 1:
                    a += _ended_first(values, a, z, text.size - depth - width + 1)
                if z - a > 1:
                    first_then[found], end_then[found] = a, z
                    found += 1
                a = z
        depth += width
        if depth >= check:
            check = 2 * depth
            num_groups = 0
            for g in range(found):
                a, e = np.int64(first_then[g]), np.int64(end_then[g])
                if _covers(text, np.int64(values[a]), depth):
                    for i in range(a + 1, e):
                        values[i] = ~values[i]
                else:
                    first_then[num_groups], end_then[num_groups] = a, e
                    num_groups += 1
        else:
            num_groups = found
        now = then


@kernel()
def name_lms_groups(lms, names, lo, hi, ahead):
    """names[p // 2] = name of LMS suffix p, from 1: the place of its group; negative where it is tied.

    Slices lo .. hi−1 begin with the first of a group.
    """
    first = lo
    for i in range(lo, hi):
        if i + ahead < hi:
            p = np.int64(lms[i + ahead])
            prefetch(names, (p if p >= 0 else ~p) >> 1)
        p = np.int64(lms[i])
        if p >= 0:
            first = i
            names[p >> 1] = -(i + 1) if i + 1 < lms.size and lms[i + 1] < 0 else i + 1
        else:
            names[~p >> 1] = -(first + 1)


@kernel()
def count_tied(names):
    """How many names `keep_tied` keeps."""
    kept, is_end = 0, False
    for i in range(names.size - 1, -1, -1):
        if names[i] > 0:
            is_end = True
        elif names[i] < 0:
            kept += 2 if is_end else 1
            is_end = False
    return kept


@kernel()
def keep_tied(text, names, reduced, positions):
    """Move the names of tied suffixes, and of those right after them, to the tail of reduced, in text order, from 0.

    positions gets the suffixes themselves, ~suffix where it isn't tied.
    """
    place, shift = reduced.size, reduced.size - positions.size
    end = np.int64(-1)  # where the suffix after this one is named, if that isn't tied
    for i in range(names.size - 1, -1, -1):
        name = np.int64(names[i])
        if name > 0:
            end = i
        elif name < 0:
            if end >= 0:
                place -= 1
                positions[place - shift] = ~(2 * end + (text[2 * end] > text[2 * end + 1]))
                reduced[place] = names[end] - 1
            place -= 1
            positions[place - shift] = 2 * i + (text[2 * i] > text[2 * i + 1])
            reduced[place] = -name - 1
            end = np.int64(-1)


@kernel()
def close_gaps(reduced, ranks, ahead):
    """Number the names anew, without gaps; returns how many there are. ranks: scratch, a place for each old name."""
    ranks[:] = 0
    n = reduced.size
    for i in range(n):
        if i + ahead < n:
            prefetch(ranks, np.int64(reduced[i + ahead]))
        ranks[reduced[i]] = 1
    total = np.int64(0)
    for name in range(ranks.size):
        used = np.int64(ranks[name])
        ranks[name] = total
        total += used
    for i in range(n):
        if i + ahead < n:
            prefetch(ranks, np.int64(reduced[i + ahead]))
        reduced[i] = ranks[reduced[i]]
    return total


@kernel()
def place_tied(lms, order, positions, ahead):
    """Give the places of tied suffixes to them in their order, order: the sorted suffixes of the names kept."""
    n = positions.size
    place = 0
    for i in range(n):
        if i + ahead < n:
            prefetch(positions, np.int64(order[i + ahead]))
        p = np.int64(positions[order[i]])
        if p >= 0:
            while lms[place] >= 0 and not (place + 1 < lms.size and lms[place + 1] < 0):
                place += 1
            lms[place] = p
            place += 1


@kernel()
def spread_buckets(lms, lms_starts, starts, order, lo, hi):
    """Copy the sorted LMS suffixes of symbols lo .. hi−1 to the ends of their buckets, with 0 before them."""
    for symbol in range(lo, hi):
        a, e = lms_starts[symbol], lms_starts[symbol + 1]
        shift = starts[symbol + 1] - e
        order[starts[symbol] : a + shift] = 0
        for i in range(a, e):
            order[i + shift] = lms[i]


def sort_large(text, order, num_symbols, parts, each, report):
    """Write the suffixes of text in lexicographic order, as `sort_suffixes` does, in several threads.

    Parameters
    ----------
    text : ndarray of shape (n,), uint16 or uint32
        Symbols 0 .. num_symbols − 1; n ≥ 2.
    order : ndarray of shape (n,), int32 or int64
        The result.
    num_symbols : int
    parts : list of (int, int)
        Slices of range(n), one for each thread.
    each : callable
        Calls a function on every tuple of arguments, in threads, and returns the results.
    report : callable
        Called with the share of the work that is done, 0 to 1.

    Notes
    -----
    Beside text and order: 4 bytes for each LMS suffix (8 from 2^31 on), 4 for each tied one, and 32 times the largest
    bucket.
    """
    counts = np.zeros((len(parts), num_symbols), order.dtype)
    ends = np.zeros((len(parts), num_symbols), order.dtype)
    each(count_lms, [(text, counts[k], ends[k], lo, hi) for k, (lo, hi) in enumerate(parts)])
    counts = counts.sum(0, dtype=order.dtype)
    np.cumsum(ends, axis=0, out=ends)
    starts = np.append(0, np.cumsum(ends[-1], dtype=np.int64))
    ends += starts[:-1].astype(order.dtype)
    found = int(starts[-1])
    lms = np.empty(found, order.dtype)
    each(list_lms, [(text, ends[k], lms, lo, hi) for k, (lo, hi) in enumerate(parts)])
    del ends
    report(0.1)
    _sort_lms(text, lms, starts, order[: found * 8 // order.itemsize].view(np.int64), num_symbols, each)
    report(0.5)
    _settle_ties(text, lms, order, len(parts), each)
    report(0.7)
    all_starts = np.append(0, np.cumsum(counts, dtype=np.int64))
    cuts = np.searchsorted(all_starts, [0, *(hi for _, hi in parts)])
    cuts[0], cuts[-1] = 0, num_symbols
    each(spread_buckets, [(lms, starts, all_starts, order, lo, hi) for lo, hi in pairwise(cuts.tolist())])
    del lms
    places = np.empty(num_symbols, order.dtype)
    induce_l(text, counts, places, order, True, False, AHEAD)
    report(0.85)
    induce_s(text, counts, places, order, True, False, AHEAD)
    report(1.0)


def _sort_lms(text, lms, starts, keys, num_symbols, each):
    """Sort each bucket of lms (starts: of the buckets); tied suffixes are marked. keys: scratch, one for each."""
    bits = max(1, int(num_symbols - 1).bit_length())

    def sort_chunk(a, e):
        """Buckets a .. e − 1."""
        lo, hi = int(starts[a]), int(starts[e])
        first, end = starts[a:e] - lo, starts[a + 1 : e + 1] - lo
        lists = np.empty((4, (hi - lo) // 2 + 1), np.int32 if hi - lo < 2**31 else np.int64)
        largest = int((end - first).max())
        others = np.empty(largest, np.int64), np.empty(largest, lms.dtype), np.empty(_DIGITS, np.int64)
        sort_groups(text, lms[lo:hi], first, end, keys[lo:hi], lists, *others, 64 // bits, bits, LEAST, AHEAD)

    chunks, a = [], 0
    while a < num_symbols:
        e = max(a + 1, int(np.searchsorted(starts, starts[a] + _CHUNK, "right")) - 1)
        if starts[e] > starts[a]:
            chunks.append((a, e))
        a = e
    each(sort_chunk, sorted(chunks, key=lambda chunk: starts[chunk[0]] - starts[chunk[1]]))  # the largest first


def _settle_ties(text, lms, order, parts, each):
    """Sort what is tied, by what comes after."""
    n, found = text.size, lms.size
    names = order[found : found + (n + 1) // 2]  # LMS suffixes are two or more apart
    names[:] = 0
    cuts = [0]
    for k in range(1, parts):
        cut = max(cuts[-1], found * k // parts)
        cut += int(np.argmax(np.append(lms[cut:] >= 0, True)))
        cuts.append(cut)
    each(name_lms_groups, [(lms, names, lo, hi, AHEAD) for lo, hi in pairwise([*cuts, found])])
    kept = int(count_tied(names))
    if kept == 0:
        return
    positions = np.empty(kept, order.dtype)
    keep_tied(text, names, order, positions)
    reduced = order[n - kept :]
    num_names = int(close_gaps(reduced, order[:found], AHEAD))
    sort_suffixes(reduced, order[:kept], num_names, level=1)
    place_tied(lms, order, positions, AHEAD)
