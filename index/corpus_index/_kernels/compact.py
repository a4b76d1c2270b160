"""Steps, positions and texts of a compact index, which stores neither positions by rank nor the text.

Naively, as the other layout has it: lists of all ranks that a token continues, the position of each rank, the text.
Here the continuations themselves, which every target reads anyway, take over a part of each. A token's list tells only
in which blocks of 256 ranks it stands, by the code of Elias (1974) and Fano (1971): the low bits of each block's number
as they are, the high ones as how many entries share them, in unary; how often before a rank inside of a block is
counted where the continuations stand. The position of every 64th position's rank is stored, and every other is found
by walking on to one of these; a text is what a walk from a sample passes. A match that breaks goes on from the node's
parents, so matching never looks at the text (Ohlebusch, Gog & Kügel 2010).

Whatever the files say, nothing here is read out of bounds once `addresses` has looked at the table of symbols.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import WORD, count_bits, equal_bits, lowest_bit
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import add_to_tally, drain_tally, first_at_least

BLOCK_SHIFT = 8  # ranks to a block, as a power of two
ZERO_SHIFT = 8  # zeros of the high bits to one that is found at once
GROUP = 8  # words of the high bits, or of the marks, that are counted together
SCANNED = 512  # ranks that are looked through rather than counted by the list
_NEAR = 8  # entries that are looked through rather than searched


@kernel()
def low_width(num_ranks, entries):
    """The low bits of each entry of a list, from its length."""
    width, blocks = np.int64(0), (num_ranks >> BLOCK_SHIFT) + 1
    while blocks >> (width + 1) >= entries:
        width += 1
    return width


def list_words(num_ranks: int, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words of the high and of the low bits of lists of so many entries: `low_width`, for all at once."""
    blocks, width = (num_ranks >> BLOCK_SHIFT) + 1, np.zeros(entries.size, np.int64)
    for more in range(1, 33):
        width += (blocks >> more) >= np.maximum(entries, 1)
    parts = ((num_ranks >> BLOCK_SHIFT) >> width) + 1
    return np.where(entries > 0, (entries + parts + 63) >> 6, 0), (entries * width + 63) >> 6


@kernel()
def _nth_bit(word, n):
    """The place of the n-th set bit of a word, from 0; some place where there are fewer."""
    place = np.int64(0)
    for half in (32, 16, 8, 4, 2, 1):
        count = count_bits(word & ((np.uint64(1) << np.uint64(half)) - np.uint64(1)))
        if n >= count:
            n -= count
            word >>= np.uint64(half)
            place += half
    return place


@kernel()
def _select_zero(steps, n):
    """The place of the n-th zero of the high bits of all lists, from 0; some place at most their number."""
    high, ones, zeros = steps.high, steps.ones, steps.zeros
    last = np.int64(ones.size) - 2
    i = min(max(n >> ZERO_SHIFT, 0), np.int64(zeros.size) - 2)
    a, e = min(np.int64(zeros[i]), last), min(np.int64(zeros[i + 1]), last)
    while a < e:
        middle = (a + e + 1) >> 1
        if middle * (WORD * GROUP) - np.int64(ones[middle]) <= n:
            a = middle
        else:
            e = middle - 1
    n -= a * (WORD * GROUP) - np.int64(ones[a])
    w = a * GROUP
    stop = min(w + GROUP, np.int64(high.size))
    while w < stop:
        word = ~high[w]
        count = count_bits(word)
        if n < count:
            return (w << 6) + _nth_bit(word, n)
        n -= count
        w += 1
    return stop << 6


@kernel()
def _run_length(high, place, most):
    """How many ones stand in the high bits from a place on, at most so many."""
    w, offset = place >> 6, place & 63
    if w >= high.size:
        return np.int64(0)
    word = ~high[w] >> np.uint64(offset)
    if word != 0:
        return min(most, np.int64(lowest_bit(word)))
    count = WORD - offset
    while count < most and w + 1 < high.size:
        w += 1
        word = ~high[w]
        if word != 0:
            return min(most, count + lowest_bit(word))
        count += WORD
    return min(most, count)


@kernel()
def _low_bits(low, place, width):
    """So many low bits from a place on."""
    w, offset = place >> 6, place & 63
    value = low[w] >> np.uint64(offset)
    if offset + width > WORD:
        value |= low[w + 1] << np.uint64(WORD - offset)
    return np.int64(value & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@kernel()
def _first_low(low, begin, width, a, e, key):
    """The first of entries a .. e − 1, ascending, whose low bits aren't below key; e if there is none."""
    while e - a > _NEAR:
        middle = (a + e) >> 1
        if _low_bits(low, begin + middle * width, width) < key:
            a = middle + 1
        else:
            e = middle
    while a < e and _low_bits(low, begin + a * width, width) < key:
        a += 1
    return a


@kernel()
def count_equal(next_tokens, a, e, c):
    """How often a token continues the ranks a .. e − 1."""
    found, n = np.int64(0), np.int64(next_tokens.size)
    while a + WORD <= e:
        found += count_bits(equal_bits(next_tokens, a, c))
        a += WORD
    if a < e and a + WORD <= n:
        return found + count_bits(equal_bits(next_tokens, a, c) & (~np.uint64(0) >> np.uint64(WORD - (e - a))))
    for r in range(a, e):
        found += np.int64(next_tokens[r]) == c
    return found


@kernel()
def _endings_before(steps, c, rank):
    """How many documents whose last token is c end at a smaller rank: those of smaller tokens counted too."""
    symbols, endings = steps.symbols, steps.endings
    size = np.int64(endings.size)
    begin = np.int64(symbols[4 * c + 1]) - (np.int64(symbols[4 * c]) - np.int64(symbols[0]))
    stop = np.int64(symbols[4 * c + 5]) - (np.int64(symbols[4 * c + 4]) - np.int64(symbols[0]))
    begin, stop = min(max(begin, 0), size), min(max(stop, 0), size)
    return first_at_least(endings, begin, stop, (np.uint64(c) << np.uint64(32)) | np.uint64(rank))


@kernel()
def count_before(steps, c, rank):
    """How often token c, followed in its document, continues the ranks below one of them."""
    symbols, next_tokens = steps.symbols, steps.next_tokens
    size = np.int64(next_tokens.size)
    begin = np.int64(symbols[4 * c + 1])
    entries = np.int64(symbols[4 * c + 5]) - begin
    followed = np.int64(symbols[4 * c + 4]) - np.int64(symbols[4 * c])
    if followed <= 0 or entries <= 0:
        return np.int64(0)
    place = np.int64(symbols[4 * c + 2]) << 6
    block, width = rank >> BLOCK_SHIFT, low_width(size, entries)
    part = block >> width
    found = np.int64(0)
    if part > 0:  # behind the zero that ends the part before
        zero = _select_zero(steps, place - begin + part - 1)
        found = min(max(zero - place - (part - 1), 0), entries)
        place = max(zero, 0) + 1
    same = _run_length(steps.high, place, entries - found)
    if width > 0 and same > 0:
        lows = np.int64(symbols[4 * c + 3]) << 6
        key = block & ((np.int64(1) << width) - 1)
        stop = found + same
        found = _first_low(steps.low, lows, width, found, stop, key)
        same = np.int64(found < stop and _low_bits(steps.low, lows + found * width, width) == key)
    if same > 0:
        found += count_equal(next_tokens, block << BLOCK_SHIFT, min(rank, size), c)
    if entries != followed:
        found -= _endings_before(steps, c, rank) - _endings_before(steps, c, np.int64(0))
    return min(max(found, 0), followed)


@kernel(work=lambda *arguments: 1)
def compact_step(steps, c, lo, hi):
    """The ranks of the contexts made of a node's and one more token c (which the corpus holds and continues)."""
    first = np.int64(steps.symbols[4 * c])
    before = count_before(steps, c, lo)
    if hi - lo > SCANNED:
        return first + before, first + max(before, count_before(steps, c, hi))
    inside = count_inside(steps, c, lo, hi)
    return first + before, min(first + before + inside, np.int64(steps.symbols[4 * c + 4]))


@kernel()
def count_inside(steps, c, lo, hi):
    """How often token c, followed in its document, continues a few ranks."""
    found = count_equal(steps.next_tokens, lo, hi, c)
    symbols = steps.symbols
    others = np.int64(symbols[4 * c + 5]) - np.int64(symbols[4 * c + 1])
    if found > 0 and others != np.int64(symbols[4 * c + 4]) - np.int64(symbols[4 * c]):
        found -= _endings_before(steps, c, hi) - _endings_before(steps, c, lo)
    return max(found, 0)


@kernel()
def next_rank(steps, rank):
    """The rank of the position after a rank's: of the next document's first, where the document ends there."""
    symbols, size = steps.symbols, np.int64(steps.next_tokens.size)
    c = min(np.int64(steps.next_tokens[rank]), np.int64(symbols.size // 4) - 2)
    first = np.int64(symbols[4 * c])
    followed = np.int64(symbols[4 * c + 4]) - first
    if np.int64(symbols[4 * c + 5]) - np.int64(symbols[4 * c + 1]) != followed:
        place = _endings_before(steps, c, rank)
        key = (np.uint64(c) << np.uint64(32)) | np.uint64(rank)
        if place < steps.endings.size and steps.endings[place] == key:
            return min(np.int64(steps.after_endings[place]), size - 1)
    return min(first + count_before(steps, c, rank), size - 1)


@kernel()
def sampled_position(text, rank):
    """The corpus position of a rank."""
    last, walked = text.num_tokens - 1, np.int64(0)
    while walked <= np.int64(1) << text.sample_shift:
        w, bit = rank >> 6, np.uint64(rank & 63)
        if (text.marks[w] >> bit) & np.uint64(1):
            k = np.int64(text.marked[w // GROUP])
            for before in range(w // GROUP * GROUP, w):
                k += count_bits(text.marks[before])
            k += count_bits(text.marks[w] & ((np.uint64(1) << bit) - np.uint64(1)))
            position = np.int64(text.samples[min(k, np.int64(text.samples.size) - 1)])
            return min(max(position - walked, 0), last)
        rank = next_rank(text.steps, rank)
        walked += 1
    return np.int64(0)  # of files that contradict themselves


@kernel()
def rank_of_position(text, position):
    """The rank of a corpus position."""
    rank = min(np.int64(text.rank_samples[position >> text.sample_shift]), text.num_tokens - 1)
    for _ in range(position & ((np.int64(1) << text.sample_shift) - 1)):
        rank = next_rank(text.steps, rank)
    return rank


@kernel()
def positions_of_ranks(text, ranks, out):
    """out[i] = the corpus position of ranks[i]."""
    for i in range(ranks.size):
        out[i] = sampled_position(text, np.int64(ranks[i]))


@kernel()
def ranks_of_stretches(text, begins, offsets, out):
    """out[offsets[i] + j] = the rank of corpus position begins[i] + j, up to offsets[i + 1]."""
    for i in range(begins.size):
        if offsets[i] == offsets[i + 1]:
            continue
        rank = rank_of_position(text, np.int64(begins[i]))
        out[offsets[i]] = rank
        for j in range(offsets[i] + 1, offsets[i + 1]):
            rank = next_rank(text.steps, rank)
            out[j] = rank


@kernel()
def _least_shared(nodes, a, e):
    """The least shared length of ranks a .. e − 1, at least one."""
    common, minima, levels = nodes.common, nodes.minima, nodes.levels
    least, level = np.int64(255), np.int64(-1)
    while a < e:
        stop = min(e, (a | 63) + 1) if level + 2 < levels.size else e
        for i in range(a, stop):
            x = np.int64(common[i]) if level < 0 else np.int64(minima[levels[level] + i])
            least = min(least, x)
        if stop == e:
            break
        for i in range(max(stop, e & ~np.int64(63)), e):
            x = np.int64(common[i]) if level < 0 else np.int64(minima[levels[level] + i])
            least = min(least, x)
        a, e = stop >> 6, e >> 6
        level += 1
    return least


_BACK = 200  # symbols that two contexts are shortened by: fewer than `common` can tell


@kernel(work=lambda *arguments: 2_000, unbounded=True)
def compact_shared(text, r, s):
    """Symbols that the contexts of two ranks share.

    As many as the least shared length between them; where that can't be told, what the contexts some symbols before
    share, and so many more.
    """
    behind, p, q = np.int64(0), np.int64(-1), np.int64(-1)
    while r != s:
        least = _least_shared(text.nodes, min(r, s) + 1, max(r, s) + 1)
        if least < 255:
            return behind + least
        if behind == 0:
            p, q = sampled_position(text, r), sampled_position(text, s)
        behind += _BACK
        if min(p, q) < behind:  # of files that contradict themselves
            break
        r, s = rank_of_position(text, p - behind), rank_of_position(text, q - behind)
    return behind


# made from the other layout


@kernel()
def fill_lists(next_tokens, symbols, taken, high, low):
    """Write the lists of all tokens; taken (S,): zeros. high, low: zeros."""
    size = np.int64(next_tokens.size)
    for r in range(size):
        c = np.int64(next_tokens[r])
        j = taken[c]
        taken[c] = j + 1
        entries = np.int64(symbols[4 * c + 5]) - np.int64(symbols[4 * c + 1])
        width, block = low_width(size, entries), r >> BLOCK_SHIFT
        bit = (np.int64(symbols[4 * c + 2]) << 6) + (block >> width) + j
        high[bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
        if width > 0:
            value = np.uint64(block & ((np.int64(1) << width) - 1))
            bit = (np.int64(symbols[4 * c + 3]) << 6) + j * width
            offset = bit & 63
            low[bit >> 6] |= value << np.uint64(offset)
            if offset + width > WORD:
                low[(bit >> 6) + 1] |= value >> np.uint64(WORD - offset)


@kernel()
def running_ones(words, out):
    """out[g] = ones before words[8 g]; the last entry: all of them."""
    total = np.int64(0)
    for w in range(words.size):
        if w % GROUP == 0:
            out[w // GROUP] = total
        total += count_bits(words[w])
    out[out.size - 1] = total


@kernel()
def fill_zeros(words, zeros):
    """zeros[i] = the group of words that holds the i-th of the zeros that are found at once; the last: the end."""
    passed = np.int64(0)
    i = np.int64(0)
    for w in range(words.size):
        passed += WORD - count_bits(words[w])
        while i < zeros.size and i << ZERO_SHIFT < passed:
            zeros[i] = w // GROUP
            i += 1
    while i < zeros.size:
        zeros[i] = (words.size - 1) // GROUP
        i += 1


@kernel()
def mark_samples(order, shift, marks, samples, rank_samples):
    """Mark the ranks of every 2^shift-th position and of the last; samples: their positions; returns how many."""
    mask, last, k = (np.int64(1) << shift) - 1, np.int64(order.size) - 1, 0
    for r in range(order.size):
        p = np.int64(order[r])
        if p & mask == 0 or p == last:
            marks[r >> 6] |= np.uint64(1) << np.uint64(r & 63)
            if k < samples.size:
                samples[k] = p
            k += 1
            if p & mask == 0:
                rank_samples[p >> shift] = r
    return k


@kernel()
def fill_row_entries(next_tokens, bounds, first, tally, words, summary, offsets, tokens, counts):
    """Write rows from the first on, entries from 0 on, until one may not fit; returns the row to go on from.

    bounds (2 R,): the rows' ranks. offsets (R + 1,): sizes are added up from `first` on. tally, words, summary: zeros.
    """
    used = np.int64(0)
    offsets[first] = 0
    for row in range(first, bounds.size // 2):
        lo, hi = np.int64(bounds[2 * row]), np.int64(bounds[2 * row + 1])
        if used + min(hi - lo, np.int64(tally.size)) > tokens.size:
            return np.int64(row)
        for r in range(lo, hi):
            c = min(np.int64(next_tokens[r]), np.int64(tally.size) - 1)
            add_to_tally(tally, words, summary, c, 1)
        used = drain_tally(tally, words, summary, tokens, counts, used)
        offsets[row + 1] = used
    return np.int64(bounds.size // 2)
