"""The nodes of several indexes' chains as nodes of their union, each distinct one once, and what is counted at them.

A *line* of whole numbers stands for a node of the union: each shard's lo, hi and whether its own node ends here, and
the depth. Lines are told apart by a hash table with linear probing: `places` has 2^k slots, at least twice as many as
lines, −1 where free.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import first_at_least, first_at_least_near, sort_part
from corpus_index._kernels.target_arrays import LEVEL

FREE = -1
_FACTOR, _BITS, _FOLD = 1_000_003, (1 << 42) - 1, 17


@kernel()
def slot_of(
    line,  # (3 S + 1,) int64
    known,  # (n, 3 S + 1) int64, the lines that are in the table
    places,  # (2^k,) int64, the table
):
    """The slot in which a line stands, or else the free one for it."""
    last = line.size - 1
    number = np.int64(line[last])
    for k in range(0, last, 3):  # hi follows from lo and the depth
        number = ((number & _BITS) * _FACTOR + line[k]) & _BITS
    number ^= number >> _FOLD
    mask = places.size - 1
    slot = number & mask
    while places[slot] != FREE:
        there = known[places[slot]]
        k = 0
        while k <= last and there[k] == line[k]:
            k += 1
        if k > last:
            return slot
        slot = (slot + 1) & mask
    return slot


@kernel()
def find_lines(
    lines,  # (m, 3 S + 1) int64
    wanted,  # (w,) int64, which of them
    known,  # (n, 3 S + 1) int64
    places,  # (2^k,) int64
    found,  # (w,) int64, to be filled
):
    """The numbers by which lines are known; −1 where they aren't."""
    for i in range(wanted.size):
        found[i] = places[slot_of(lines[wanted[i]], known, places)]


@kernel()
def add_lines(
    known,  # (n, 3 S + 1) int64
    begin,  # int64, from this one on they aren't in the table yet
    end,  # int64
    places,  # (2^k,) int64, to be filled
):
    """Put lines into the table."""
    for i in range(begin, end):
        places[slot_of(known[i], known, places)] = i


@kernel()
def span_nodes(
    bounds,  # (S + 1,) int64: shard k's nodes are bounds[k] : bounds[k + 1] of the next four
    keys,  # (N,) int64, position << 32 | how far from the deepest; a shard's ascend
    lo,  # (N,) int64
    hi,  # (N,) int64
    depths,  # (N,) int64; 0: the empty context, which each chain ends with
    at,  # (S,) int64, scratch
    spanning,  # (S,) int64, scratch
    offsets,  # (Q + 1,) int64, to be filled: position q's nodes are offsets[q] : offsets[q + 1]
    union_depths,  # (room,) int64, to be filled
    rows,  # (room,) int64, to be filled: the line of each node; of the empty context the number of lines
    lines,  # (room, 3 S + 1) int64, to be filled: the distinct ones
    first,  # (room,) int64, to be filled: the node that each line was first met at
    places,  # (2^k,) int64, all free; to be filled
):
    """The union of the depths of each position's chains, and what of each shard spans each; returns the lines."""
    shards, used, size = bounds.size - 1, np.int64(0), np.int64(0)
    offsets[0] = 0
    for k in range(shards):
        at[k] = bounds[k]
    for q in range(offsets.size - 1):
        for k in range(shards):
            spanning[k] = -1
        while True:
            depth = np.int64(0)
            for k in range(shards):
                if at[k] < bounds[k + 1] and keys[at[k]] >> 32 == q:
                    depth = max(depth, depths[at[k]])
            if depth == 0:
                break
            line = lines[size]
            for k in range(shards):
                own = at[k] < bounds[k + 1] and keys[at[k]] >> 32 == q and depths[at[k]] == depth
                if own:
                    spanning[k] = at[k]
                    at[k] += 1
                node = spanning[k]
                line[3 * k] = lo[node] if node >= 0 else 0
                line[3 * k + 1] = hi[node] if node >= 0 else 0
                line[3 * k + 2] = own
            line[3 * shards] = depth
            slot = slot_of(line, lines, places)
            if places[slot] == FREE:
                places[slot] = size
                first[size] = used
                size += 1
            rows[used] = places[slot]
            union_depths[used] = depth
            used += 1
        for k in range(shards):
            while at[k] < bounds[k + 1] and keys[at[k]] >> 32 == q:
                at[k] += 1
        rows[used] = -1
        union_depths[used] = 0
        used += 1
        offsets[q + 1] = used
    for i in range(used):
        if rows[i] < 0:
            rows[i] = size
    return size


@kernel()
def number_rows(
    parents,  # (n,) int64: the row of the next shorter context, −1: none, −2 − i: the i-th of these; out: no −2 − i
    sizes,  # (n,) int64
    pair_sizes,  # (n,) int64
    totals,  # (n,) int64, occurrences of each
    table,  # (room, COLUMNS) uint32, the rows that are kept
    rows,  # int64, kept already
    entries,  # int64, likewise
    pairs,  # int64, likewise
    most,  # int64, entries and pairs that may be kept
    numbers,  # (n,) int64, −1 of those that aren't kept yet; to be filled: −1 of those that have no place
    levels,  # (n,) int64, to be filled: of the new rows, how many contexts are above each
):
    """Number the rows that are to be kept, parents first; returns how many rows are kept then."""
    begun = rows
    for i in range(numbers.size):
        if parents[i] < -1:
            parents[i] = numbers[-2 - parents[i]]
            if parents[i] < 0:
                continue
        if numbers[i] >= 0 or entries + sizes[i] > most or pairs + pair_sizes[i] > most or totals[i] >= 1 << 32:
            continue
        parent = parents[i]
        level = np.int64(0)
        if parent >= begun:
            level = levels[parent - begun] + 1
        elif parent >= 0:
            level = np.int64(table[parent, LEVEL]) + 1
        levels[rows - begun] = level
        numbers[i] = rows
        entries += sizes[i]
        pairs += pair_sizes[i]
        rows += 1
    return rows


@kernel()
def count_labels(
    offsets,  # (Q + 1,) int64
    rows,  # (E,) int64, of each node
    labels,  # (Q,) int64; −1: unknown, the number of symbols: nowhere
    row_offsets,  # (R + 1,) int64
    row_tokens,  # (K,) int64, ascending in each row
    row_counts,  # (K,) int64
    row_lefts,  # (K,) int64
    stored,  # (R,) int64: the number among the kept rows, −1: none
    kept_offsets,  # (H + 1,) int64
    kept_tokens,  # (M,) uint16 or uint32
    kept_counts,  # (M,) uint32
    kept_lefts,  # (M,) uint32
    kept_classes,  # (H, 2, 4) int64
    left,  # bool, whether left extensions are wanted
    classes,  # (R, 2, 4) int64, zeros; scratch
    occurrences,  # (E, 5) int64, to be filled: LABEL, TOTAL, ONES, TWOS, MORE
    lefts,  # (E, 5) int64, zeros, to be filled where wanted
):
    """The label's counts at each node, and the sum and classes of each node's row."""
    for r in range(stored.size):
        for i in range(row_offsets[r], row_offsets[r + 1]):
            for side in range(1 + left):
                value = row_lefts[i] if side else row_counts[i]
                classes[r, side, 0] += value
                if value > 0:
                    classes[r, side, min(value, 3)] += 1
    for q in range(labels.size):
        label = labels[q]
        for node in range(offsets[q], offsets[q + 1]):
            row = rows[node]
            number = stored[row]
            count, count_left = np.int64(0), np.int64(0)
            if number >= 0:
                end = kept_offsets[number + 1]
                place = first_at_least(kept_tokens, kept_offsets[number], end, label)
                if place < end and kept_tokens[place] == label:
                    count, count_left = np.int64(kept_counts[place]), np.int64(kept_lefts[place])
            else:
                end = row_offsets[row + 1]
                place = first_at_least(row_tokens, row_offsets[row], end, label)
                if place < end and row_tokens[place] == label:
                    count, count_left = row_counts[place], row_lefts[place]
            occurrences[node, 0] = count
            for column in range(4):
                occurrences[node, column + 1] = (
                    kept_classes[number, 0, column] if number >= 0 else classes[row, 0, column]
                )
            if left:
                lefts[node, 0] = count_left
                for column in range(4):
                    lefts[node, column + 1] = (
                        kept_classes[number, 1, column] if number >= 0 else classes[row, 1, column]
                    )


@kernel()
def count_losses(
    offsets,  # (L + 1,) int64: list l is offsets[l] : offsets[l + 1] of the next three
    tokens,  # (G,) int64, ascending in each list
    counts,  # (G,) int64, what is lost
    lefts,  # (G,) int64
    rows,  # (L,) int64, the row that each list is of
    row_offsets,  # (R + 1,) int64, and all that follows as in `count_labels`
    row_tokens,
    row_counts,
    row_lefts,
    stored,
    kept_offsets,
    kept_tokens,
    kept_counts,
    kept_lefts,
    before,  # (2, G) int64, to be filled: the token's count and left extensions in the row, 0 where it isn't there
    changes,  # (L, 2, 4) int64, zeros, to be filled: what a list changes of its row's sums and classes
):
    """What rows have of the tokens that they lose, and what that changes."""
    for one in range(rows.size):
        number, row = stored[rows[one]], rows[one]
        place = kept_offsets[number] if number >= 0 else row_offsets[row]
        end = kept_offsets[number + 1] if number >= 0 else row_offsets[row + 1]
        for i in range(offsets[one], offsets[one + 1]):
            count, left = np.int64(0), np.int64(0)
            if number >= 0:
                place = first_at_least_near(kept_tokens, place, end, tokens[i])
                if place < end and kept_tokens[place] == tokens[i]:
                    count, left = np.int64(kept_counts[place]), np.int64(kept_lefts[place])
            else:
                place = first_at_least_near(row_tokens, place, end, tokens[i])
                if place < end and row_tokens[place] == tokens[i]:
                    count, left = row_counts[place], row_lefts[place]
            before[0, i], before[1, i] = count, left
            for side in range(2):
                lost = lefts[i] if side else counts[i]
                changes[one, side, 0] -= lost
                if before[side, i] > 0:
                    changes[one, side, min(before[side, i], 3)] -= 1
                if before[side, i] > lost:
                    changes[one, side, min(before[side, i] - lost, 3)] += 1


@kernel()
def find_in_rows(
    offsets,  # (R + 1,) int64
    values,  # (N,) of whole numbers, ascending in each row
    rows,  # (n,) int64, where each is sought
    wanted,  # (n,) int64; quick where those of one row stand together and ascend
    places,  # (n,) int64, to be filled
):
    """The place of each wanted value in its row: of the first that isn't smaller."""
    row, place = np.int64(-1), np.int64(0)
    for i in range(rows.size):
        begin, end = offsets[rows[i]], offsets[rows[i] + 1]
        if rows[i] == row and place > begin and values[place - 1] < wanted[i]:
            begin = place
            step = np.int64(1)
            while begin + step < end and values[begin + step] < wanted[i]:
                begin += step
                step *= 2
            end = min(end, begin + step + 1)
        row, place = rows[i], first_at_least(values, begin, end, wanted[i])
        places[i] = place


@kernel()
def fill_codes(
    codes,  # (n,) int64, of the tokens that follow the ranks of a stretch, by rank
    places,  # (n,) int64, the positions of the ranks, from the first token of `around` on; not read without `left`
    starts,  # (n,) int64, where their documents start, likewise
    around,  # (m,) int64, the text from the first of these starts on
    left,  # bool, whether the symbols before the contexts are wanted
    begins,  # (k,) int64: node i holds ranks begins[i] .. ends[i] − 1 of these
    ends,  # (k,) int64
    depths,  # (k,) int64
    found,  # (room,) int64, to be filled: the codes of each node, one after the other
):
    """The codes of what nodes lose with a stretch of text. room: the ranks in all nodes."""
    end = np.int64(0)
    for node in range(begins.size):
        for i in range(begins[node], ends[node]):
            code = codes[i]
            if left:
                before = places[i] - depths[node] - 1
                code += around[before] + 1 if before >= starts[i] else 0
            found[end] = code
            end += 1


@kernel()
def count_codes(
    offsets,  # (k + 1,) int64: node i's codes are entries offsets[i] .. offsets[i + 1] − 1
    long,  # int64, more codes than that are sorted already
    found,  # (room,) int64; out: the distinct codes of each node, ascending
    nodes,  # (room,) int64, to be filled
    counts,  # (room,) int64, to be filled
):
    """Sort and count the codes of each node; returns how many distinct ones there are."""
    used = np.int64(0)
    for node in range(offsets.size - 1):
        first, begin, end = used, offsets[node], offsets[node + 1]
        if end - begin <= long:
            sort_part(found, begin, end)
        for i in range(begin, end):
            if used > first and found[used - 1] == found[i]:
                counts[used - 1] += 1
            else:
                found[used], counts[used], nodes[used] = found[i], 1, node
                used += 1
    return used
