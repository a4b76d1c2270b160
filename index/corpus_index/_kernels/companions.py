"""From the sorted suffixes to the flat arrays of the index; every kernel runs over a slice, so that threads share them.

The text that is sorted is the corpus read backwards: the documents from the last to the first, each reversed, each
token raised by one, each non-empty document closed by the symbol 0, its start. Suffix i of that text is the context of
one corpus position (nearest token first, up to the start), or the whole of a document, which nothing follows: those are
dropped here. text[i − 1] is the continuation of context i.

Shared length of neighbours: Kasai et al. 2001 in the form of Kärkkäinen, Manzini & Puglisi 2009 (by way of each
suffix's predecessor), which reads the text in order.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import first_at_least


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
def fill_predecessors(suffixes, predecessor, lo, hi, ahead):
    """predecessor[i] = the suffix sorted right before suffix i (the first one's: itself)."""
    before = np.int64(suffixes[lo - 1]) if lo > 0 else np.int64(suffixes[0])
    for r in range(lo, hi):
        if r + ahead < hi:
            prefetch(predecessor, np.int64(suffixes[r + ahead]))
        i = np.int64(suffixes[r])
        predecessor[i] = before
        before = i


@kernel()
def fill_shared_lengths(text, predecessor, shared, lo, hi, ahead):
    """shared[i] = symbols shared with the predecessor, up to the start symbol, which counts; at most 65,535."""
    h = 0
    for i in range(lo, hi):
        if i + ahead < hi:
            prefetch(text, np.int64(predecessor[i + ahead]) + h)
        j = np.int64(predecessor[i])
        if i == j:
            h = 0
        else:  # the last symbol of the text is 0, so that no read leaves it
            while text[i + h] != 0 and text[i + h] == text[j + h]:
                h += 1
        closed = i != j and text[i + h] == 0 and text[j + h] == 0
        shared[i] = min(h + 1 if closed else h, 65535)
        if h > 0:
            h -= 1


@kernel()
def fill_ranked(
    text,  # (L,) uint16 or uint32, the backwards text
    suffixes,  # (L,) int32 or int64, its suffixes in order; becomes corpus positions
    shared,  # (L,) uint16, of `fill_shared_lengths`
    starts,  # (filled + 1,) int64, of the non-empty documents, and N
    directory,  # of `fill_text_directory`, uint32
    shift,  # int64, of it
    next_tokens,  # (L,) uint16 or uint32, out
    common,  # (L,) uint8, out, at most 255
    deep,  # (L,) uint16, out, at most 65,535
    last,  # (documents,) int64, out: ranks, from lo, of the last positions of documents
    lo,  # int64, the slice lo .. hi − 1
    hi,  # int64
    ahead,  # int64, entries between asking for memory and reading it
):
    """Fill the arrays by rank from one slice of the suffixes, dropping whole documents; returns (kept, ends, carry).

    suffixes[lo : lo + kept] becomes corpus positions. common is capped at 255, deep at 65,535. last receives the ranks
    (from lo) whose position is the last of its document. carry is what the first entry kept after hi may share at most.
    """
    num_documents = starts.size - 1
    num_tokens = np.int64(starts[num_documents])
    place = lo
    ends = 0
    smallest = np.int64(2**62)  # over the dropped entries before the next kept one
    for r in range(lo, hi):
        if r + ahead < hi:
            i = np.int64(suffixes[r + ahead])
            prefetch(text, i - 1)
            prefetch(shared, i)
        i = np.int64(suffixes[r])
        smallest = min(smallest, np.int64(shared[i]))
        symbol = np.int64(text[i - 1]) if i > 0 else 0
        if symbol == 0:
            continue
        # i = N − p + (documents after p's): walk to the document, counted from the end of the corpus
        behind = np.int64(directory[i >> shift])
        while num_tokens - np.int64(starts[num_documents - 1 - behind]) + behind < i:
            behind += 1
        suffixes[place] = num_tokens + behind - i
        next_tokens[place] = symbol - 1
        common[place] = min(smallest, 255)
        deep[place] = smallest
        if i == 1 or text[i - 2] == 0:
            last[ends] = place - lo
            ends += 1
        place += 1
        smallest = np.int64(2**62)
    return place - lo, ends, smallest


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
