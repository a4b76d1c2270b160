"""From the sorted suffixes to the flat arrays of the index; every kernel runs over a slice, so that threads share them.

The text that is sorted is the corpus read backwards: the documents from the last to the first, each reversed, each
token raised by one, each non-empty document closed by the symbol 0, its start. Suffix i of that text is the context of
one corpus position (nearest token first, up to the start), or the whole of a document, which nothing follows: those are
dropped here. text[i − 1] is the continuation of context i.

Shared length of neighbours: the two texts are compared, up to NEAR symbols, while the sorted suffixes are gone through
for their continuations anyhow: one place of the text a suffix. What shares more (a fifth) is done as Kasai et al. 2001
do it, in the form of Kärkkäinen, Manzini & Puglisi 2009: by way of each suffix's predecessor, in the text's order.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import first_at_least

NEAR = 16  # symbols


@kernel()
def fill_backwards(tokens, starts, text, lo, hi):
    """Write the documents lo .. hi−1 (starts: of the non-empty ones, and N) into the backwards text."""
    num_tokens = tokens.size
    num_documents = starts.size - 1
    for document in range(lo, hi):
        start, end = np.int64(starts[document]), np.int64(starts[document + 1])
        place = num_tokens - end + num_documents - 1 - document
        for p in range(end - 1, start - 1, -1):
            text[place] = tokens[p] + 1
            place += 1
        text[place] = 0


@kernel()
def fill_neighbours(
    text,  # (L,) uint16 or uint32, the backwards text
    suffixes,  # (L,) int32 or int64, its suffixes in order
    common,  # (L,) uint8, out: symbols shared with the suffix sorted before, up to the start symbol, which counts
    following,  # (L,) uint16 or uint32, out: the symbol before the suffix, less one
    predecessor,  # (L,) int32 or int64, zeros; by suffix, out: the one sorted before, plus one, where NEAR are shared
    lo,  # int64, the slice lo .. hi − 1 of ranks
    hi,  # int64
    ahead,  # int64, entries between asking for memory and reading it
):
    """Compare each suffix with the one sorted before; common is NEAR + 1 where that many symbols are the same."""
    j = np.int64(suffixes[lo - 1]) if lo > 0 else np.int64(-1)
    for r in range(lo, hi):
        if r + ahead < hi:
            i = np.int64(suffixes[r + ahead])
            prefetch(text, i - 1)
            prefetch(text, i + NEAR)  # often in another cache line
        i = np.int64(suffixes[r])
        h = 0
        if j >= 0:  # the last symbol of the text is 0, so that no read leaves it
            while h < NEAR and text[i + h] != 0 and text[i + h] == text[j + h]:
                h += 1
            if h == NEAR:
                h = NEAR + 1
                predecessor[i] = j + 1
            elif text[i + h] == 0 and text[j + h] == 0:
                h += 1
        common[r] = h
        symbol = np.int64(text[i - 1]) if i > 0 else 0
        following[r] = symbol - 1 if symbol > 0 else 0
        j = i


@kernel()
def fill_shared_lengths(text, predecessor, lo, hi, ahead):
    """Where predecessor isn't 0, replace it by the symbols shared with that suffix (less one), at most 65,535."""
    h = 0
    for i in range(lo, hi):
        if i + ahead < hi:
            v = np.int64(predecessor[i + ahead])
            if v > 0:
                prefetch(text, v - 1 + max(h, NEAR))
        v = np.int64(predecessor[i])
        if v == 0:
            h = 0
            continue
        h = max(h, NEAR)
        j = v - 1
        while text[i + h] != 0 and text[i + h] == text[j + h]:
            h += 1
        closed = text[i + h] == 0 and text[j + h] == 0
        predecessor[i] = min(h + 1 if closed else h, 65535)
        h -= 1


@kernel()
def fill_ranked(
    suffixes,  # (L,) int32 or int64, sorted; becomes corpus positions
    shared,  # (L,) int32 or int64, of `fill_shared_lengths`, by suffix
    ends,  # (filled + 1,) int32 or int64: −1, and where the documents end in the text, from the last one on
    directory,  # of `fill_text_directory`, uint32
    shift,  # int64, of it
    following,  # (L,) uint16 or uint32, of `fill_neighbours`; becomes next tokens
    common,  # (L,) uint8, of `fill_neighbours`; becomes shared lengths of at most 255
    deep,  # (L,) uint16, out, shared lengths of at most 65,535
    last,  # (documents,) int64, out: ranks, from lo, of the last positions of documents
    lo,  # int64, the slice lo .. hi − 1
    hi,  # int64
    ahead,  # int64, entries between asking for memory and reading it
):
    """Fill the arrays by rank from one slice of the suffixes, dropping whole documents; returns (kept, found, carry).

    suffixes[lo : lo + kept] becomes corpus positions. last[:found] receives the ranks (from lo) whose position is the
    last of its document. carry is what the first entry kept after hi may share at most.
    """
    num_tokens = np.int64(ends[-1]) - ends.size + 2
    place = lo
    found = 0
    smallest = np.int64(2**62)  # over the dropped entries before the next kept one
    for r in range(lo, hi):
        if r + ahead < hi and common[r + ahead] > NEAR:
            prefetch(shared, np.int64(suffixes[r + ahead]))
        i = np.int64(suffixes[r])
        smallest = min(smallest, np.int64(shared[i]) if common[r] > NEAR else np.int64(common[r]))
        # i = N − p + (documents after p's): walk to the document, counted from the end of the corpus
        behind = np.int64(directory[i >> shift])
        while np.int64(ends[behind + 1]) < i:
            behind += 1
        inside = i - 1 - np.int64(ends[behind])
        if inside == 0:  # the whole document
            continue
        suffixes[place] = num_tokens + behind - i
        following[place] = following[r]
        common[place] = min(smallest, 255)
        deep[place] = smallest
        if inside == 1:
            last[found] = place - lo
            found += 1
        place += 1
        smallest = np.int64(2**62)
    return place - lo, found, smallest


@kernel()
def fill_text_directory(starts, directory, shift):
    """directory[b] = how many whole documents lie behind text place b << shift, at most (fill_ranked walks on)."""
    num_documents = starts.size - 1
    num_tokens = np.int64(starts[num_documents])
    behind = 0
    for b in range(directory.size):
        place = np.int64(b) << shift
        while behind < num_documents - 1 and num_tokens - np.int64(starts[num_documents - 1 - behind]) + behind < place:
            behind += 1
        directory[b] = behind


@kernel()
def fill_document_directory(doc_starts, directory, shift):
    """directory[b] = the last document that starts at or before position b << shift."""
    document = 0
    num_documents = doc_starts.size - 1
    for b in range(directory.size):
        position = np.int64(b) << shift
        while document + 1 < num_documents and np.int64(doc_starts[document + 1]) <= position:
            document += 1
        directory[b] = document


@kernel()
def block_minima(values, minima, width):
    """minima[b] = the smallest of values[b·width : (b + 1)·width]."""
    n = values.size
    for b in range(minima.size):
        smallest = values[b * width]
        for i in range(b * width, min(n, (b + 1) * width)):
            smallest = min(smallest, values[i])
        minima[b] = smallest


@kernel()
def count_continuations(next_tokens, last, counts, lo, hi):
    """Count the continuations of ranks lo .. hi−1 that are themselves continued (last: the sorted ranks of others)."""
    for r in range(lo, hi):
        counts[next_tokens[r]] += 1
    for i in range(first_at_least(last, 0, last.size, lo), first_at_least(last, 0, last.size, hi)):
        counts[next_tokens[last[i]]] -= 1


@kernel()
def fill_occurrences(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    last,  # (D,) int64, ranks that nothing continues, ascending
    symbols,  # (4 S + 4,) uint32: first, list, directory, shift of each
    taken,  # (S,) uint32, entries of each symbol written before lo
    near,  # (·,) uint16, lists of frequent symbols, out
    far,  # (·,) uint32, lists of the others, out
    directory,  # (·,) uint32, sizes of buckets, one place on, out
    spill,  # (S,) uint32, sizes of the bucket that lo cuts, out
    lo,  # int64, the slice lo .. hi − 1
    hi,  # int64
):
    """Write where each token stands in next_tokens, for ranks lo .. hi−1.

    symbols: four numbers a symbol, as in the format: first, place of the list, place of its directory, shift.
    taken[c]: entries of c written before lo. Bucket sizes are added to directory[place + bucket + 1], those of the
    bucket that lo cuts to spill[c].
    """
    end = first_at_least(last, 0, last.size, lo)
    next_last = np.int64(last[end]) if end < last.size else np.int64(-1)
    for r in range(lo, hi):
        c = np.int64(next_tokens[r])
        if r == next_last:
            end += 1
            next_last = np.int64(last[end]) if end < last.size else np.int64(-1)
            continue
        place = np.int64(symbols[4 * c + 1]) + np.int64(taken[c])
        taken[c] += 1
        shift = np.int64(symbols[4 * c + 3])
        bucket = r >> shift
        if shift <= 16:
            near[place] = r & 0xFFFF
        else:
            far[place] = r
        if lo > 0 and bucket == lo >> shift:
            spill[c] += 1
        else:
            directory[np.int64(symbols[4 * c + 2]) + bucket + 1] += 1


@kernel()
def add_spill(symbols, directory, spill, cut):
    """Add what a slice that starts at rank cut put aside for the buckets that cut divides."""
    for c in range(spill.size):
        if spill[c] > 0:
            directory[np.int64(symbols[4 * c + 2]) + (cut >> np.int64(symbols[4 * c + 3])) + 1] += spill[c]


@kernel()
def finish_directory(symbols, counts, num_ranks, directory):
    """Turn bucket sizes into running sums, symbol by symbol."""
    for c in range(counts.size):
        if counts[c] == 0:  # has no buckets
            continue
        start = np.int64(symbols[4 * c + 2])
        buckets = (num_ranks >> np.int64(symbols[4 * c + 3])) + 1
        total = np.int64(0)
        for b in range(buckets + 1):
            total += np.int64(directory[start + b])
            directory[start + b] = total
