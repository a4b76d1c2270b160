"""Suffix sorting by induced sorting: the passes of SA-IS (Nong, Zhang & Chan 2009).

What it computes: the starts 0 .. n−1 of a string's suffixes in lexicographic order, a shorter suffix before its
extensions. Naively `sorted(range(n), key=lambda i: text[i:])`. O(n) time; the only large memory is the result itself
(the reduced string of the recursion lives in its tail) and one array over the alphabet.

A suffix is of type S when it is smaller than the suffix after it, else of type L; it is LMS when it is S and the one
before it is L. Sorted LMS suffixes determine all others: one scan from the left places the L suffixes, one from the
right the S suffixes. The sign of an entry of `order` says whether a scan still has to look before it; `~v` is the
negative form of v.

Where this differs from the paper: types are never stored (an entry's sign is set from the two symbols read anyhow),
and every scan asks for the cache lines that it needs `AHEAD` entries later, in two or three steps: symbol, bucket,
place to write. On 100 million tokens that is the difference between a minute and a few seconds.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import is_cold, kernel


@kernel()
def count_symbols(text, counts):
    """Add the number of times that each symbol occurs."""
    for i in range(text.size):
        counts[text[i]] += 1


@kernel()
def _bucket_starts(counts, places):
    total = np.int64(0)
    for symbol in range(counts.size):
        places[symbol] = total
        total += np.int64(counts[symbol])


@kernel()
def _bucket_ends(counts, places):
    total = np.int64(0)
    for symbol in range(counts.size):
        total += np.int64(counts[symbol])
        places[symbol] = total


@kernel()
def place_lms(text, counts, places, order):
    """Put the LMS suffixes at the ends of their buckets, in any order; returns how many there are."""
    n = text.size
    order[:] = 0
    _bucket_ends(counts, places)
    found = 0
    after = np.int64(text[n - 1])
    is_s = False  # the last suffix is L: the empty one after it is smaller
    for i in range(n - 2, -1, -1):
        here = np.int64(text[i])
        if here < after:
            is_s = True
        elif here > after:
            if is_s:  # i is L, i + 1 is LMS
                place = np.int64(places[after]) - 1
                places[after] = place
                order[place] = i + 1
                found += 1
            is_s = False
        after = here
    return found


@kernel()
def induce_l(text, counts, places, order, keep, deep, ahead):
    """Scan from the left and place the L suffixes.

    Afterwards a positive entry is one that the scan for S has to look before. keep says whether the other entries
    stay (negative) or are cleared, as they may be while only LMS substrings are sorted.
    """
    n = text.size
    _bucket_starts(counts, places)
    last = np.int64(text[n - 1])
    place = np.int64(places[last])
    places[last] = place + 1
    order[place] = ~(n - 1) if n > 1 and np.int64(text[n - 2]) < last else n - 1
    for i in range(n):
        if i + 3 * ahead < n:
            v = np.int64(order[i + 3 * ahead])
            if v > 0:
                prefetch(text, v - 1)
            if deep:
                v = np.int64(order[i + 2 * ahead])
                if v > 0:
                    prefetch(places, np.int64(text[v - 1]))
            v = np.int64(order[i + ahead])
            if v > 0:
                prefetch(order, np.int64(places[text[v - 1]]))
        v = np.int64(order[i])
        if v > 0:
            order[i] = ~v if keep else 0
            j = v - 1
            symbol = np.int64(text[j])
            place = np.int64(places[symbol])
            places[symbol] = place + 1
            order[place] = ~j if j > 0 and np.int64(text[j - 1]) < symbol else j
        elif v < 0:
            order[i] = ~v
        elif keep:
            order[i] = ~v


@kernel()
def induce_s(text, counts, places, order, keep, deep, ahead):
    """Scan from the right and place the S suffixes.

    With keep, every entry is a suffix at the end. Without, only the LMS suffixes are left, negative.
    """
    n = text.size
    _bucket_ends(counts, places)
    for i in range(n - 1, -1, -1):
        if i - 3 * ahead >= 0:
            v = np.int64(order[i - 3 * ahead])
            if v > 0:
                prefetch(text, v - 1)
            if deep:
                v = np.int64(order[i - 2 * ahead])
                if v > 0:
                    prefetch(places, np.int64(text[v - 1]))
            v = np.int64(order[i - ahead])
            if v > 0:
                prefetch(order, np.int64(places[text[v - 1]]) - 1)
        v = np.int64(order[i])
        if v > 0:
            if not keep:
                order[i] = 0
            j = v - 1
            symbol = np.int64(text[j])
            place = np.int64(places[symbol]) - 1
            places[symbol] = place
            if keep:
                order[place] = ~j if j == 0 or np.int64(text[j - 1]) > symbol else j
            else:
                order[place] = ~j if j > 0 and np.int64(text[j - 1]) > symbol else j
        elif keep:
            order[i] = ~v


@kernel()
def collect_lms(order, found):
    """Move the (negative) LMS entries to the front and clear the rest."""
    taken = 0
    for i in range(order.size):
        v = np.int64(order[i])
        if v < 0:
            order[taken] = ~v
            taken += 1
    order[found:] = 0


@kernel()
def name_lms(text, order, found, ahead):
    """Give equal LMS substrings equal names, in order; returns how many names there are.

    The name (from 1) of the substring at p is left in order[found + p // 2]: LMS suffixes are two or more apart.
    """
    n = text.size
    # the length of each substring, in the same place
    end = n
    after = np.int64(text[n - 1])
    is_s = False
    for i in range(n - 2, -1, -1):
        here = np.int64(text[i])
        if here < after:
            is_s = True
        elif here > after:
            if is_s:
                order[found + ((i + 1) >> 1)] = end - i - 1
                end = i + 2  # substrings share their end with the start of the next
            is_s = False
        after = here
    name = 0
    before = np.int64(-1)
    before_length = np.int64(-1)
    for i in range(found):
        if i + 2 * ahead < found:
            v = np.int64(order[i + 2 * ahead])
            prefetch(text, v)
            prefetch(order, found + (v >> 1))
        p = np.int64(order[i])
        length = np.int64(order[found + (p >> 1)])
        same = length == before_length and p + length < n and before + length < n
        if same:
            k = 0
            while k < length and text[p + k] == text[before + k]:
                k += 1
            same = k == length
        if not same:
            name += 1
            before = p
            before_length = length
        order[found + (p >> 1)] = name
    return name


@kernel()
def gather_names(order, found):
    """Move the names, in text order and from 0, to the tail of order: the reduced string."""
    n = order.size
    place = n
    for i in range(found + n // 2 if found + n // 2 < n else n - 1, found - 1, -1):
        v = np.int64(order[i])
        if v > 0:
            place -= 1
            order[place] = v - 1


@kernel()
def lms_from_reduced(text, order, found, ahead):
    """Turn the sorted suffixes of the reduced string, in order[:found], into sorted LMS suffixes."""
    n = text.size
    place = n
    after = np.int64(text[n - 1])
    is_s = False
    for i in range(n - 2, -1, -1):
        here = np.int64(text[i])
        if here < after:
            is_s = True
        elif here > after:
            if is_s:
                place -= 1
                order[place] = i + 1
            is_s = False
        after = here
    base = n - found
    for i in range(found):
        if i + ahead < found:
            prefetch(order, base + np.int64(order[i + ahead]))
        order[i] = order[base + np.int64(order[i])]


@kernel()
def spread_lms(text, counts, places, order, found, ahead):
    """Move the sorted LMS suffixes from the front of order to the ends of their buckets."""
    order[found:] = 0
    _bucket_ends(counts, places)
    for i in range(found - 1, -1, -1):
        if i - ahead >= 0:
            prefetch(text, np.int64(order[i - ahead]))
        v = np.int64(order[i])
        order[i] = 0
        symbol = np.int64(text[v])
        place = np.int64(places[symbol]) - 1
        places[symbol] = place
        order[place] = v


SMALL = 1 << 18


def sort_small(text, order):
    """`sort_suffixes` by doubling (Manber & Myers 1990), in numpy: O(n log² n), and nothing to compile."""
    n = text.size
    rank = np.unique(text, return_inverse=True)[1].astype(np.int64)
    length = 1
    while True:
        after = np.zeros(n, np.int64)  # nothing: smaller than all
        after[: n - length] = rank[length:] + 1
        key = rank * (n + 1) + after
        order[:] = np.argsort(key, kind="stable")
        ascending = key[order]
        rank[order] = np.append(0, np.cumsum(ascending[1:] != ascending[:-1]))
        length *= 2
        if length >= n or int(rank[order[-1]]) == n - 1:
            return


AHEAD = 24  # entries; 16 to 64 are equally good on the machines tried


def sort_suffixes(text, order, num_symbols, report=None, level=0):
    """Write the suffixes of text in lexicographic order.

    Parameters
    ----------
    text : ndarray of shape (n,), any integer type
        Symbols 0 .. num_symbols − 1; n ≥ 1.
    order : ndarray of shape (n,), int32 or int64
        The result; int32 where n < 2^31.
    num_symbols : int
    report : callable, optional
        Called with the share of the work that is done, 0 to 1.
    """
    n = text.size
    if level > 0 and n <= SMALL and is_cold(induce_s, text, order, order, order, False, True, AHEAD):
        sort_small(text, order)
        return
    counts = np.zeros(num_symbols, order.dtype)
    count_symbols(text, counts)
    places = np.empty(num_symbols, order.dtype)
    deep = level > 0
    step = report if report is not None and level == 0 else (lambda share: None)
    found = int(place_lms(text, counts, places, order))
    step(0.05)
    if found > 0:
        induce_l(text, counts, places, order, False, deep, AHEAD)
        step(0.2)
        induce_s(text, counts, places, order, False, deep, AHEAD)
        step(0.32)
        collect_lms(order, found)
        names = int(name_lms(text, order, found, AHEAD))
        step(0.42)
        if names < found:
            gather_names(order, found)
            sort_suffixes(order[n - found :], order[:found], names, level=level + 1)
            lms_from_reduced(text, order, found, AHEAD)
        step(0.62)
    spread_lms(text, counts, places, order, found, AHEAD)
    induce_l(text, counts, places, order, True, deep, AHEAD)
    step(0.82)
    induce_s(text, counts, places, order, True, deep, AHEAD)
    step(1.0)
