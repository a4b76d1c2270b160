"""The nodes whose rows are stored, made ready for targets: their ancestors, totals and left extensions.

Made at the first use, O(entries of the rows), and kept with the index.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels import counting, heavy
from corpus_index._kernels import label_places as look_up
from corpus_index._kernels import target_arrays as columns
from corpus_index._kernels.arrays import read_only
from corpus_index._kernels.target_arrays import HeavyNodes
from corpus_index.core.mapped import OpenedIndex


def heavy_nodes(index: OpenedIndex, lefts: np.ndarray | None) -> HeavyNodes:
    """The stored rows as kernels take them; lefts: the left extensions of their entries, as Kneser–Ney wants them."""
    bounds, offsets = index.array("row_bounds"), index.array("row_offsets")
    num_rows = bounds.shape[0]
    table = _aligned_zeros(num_rows, columns.COLUMNS)
    arrays = index.kernel_arrays()
    flat, directory, shift = bounds.reshape(-1), index.array("row_directory"), index.row_shift
    outer_first = np.lexsort((-bounds[:, 1].astype(np.int64), bounds[:, 0]))
    chain = int(heavy.fill_ancestors(arrays.text, arrays.nodes, flat, outer_first, table))
    heavy.fill_depths(arrays.nodes.common, table)
    widths = table[:, columns.HI] - table[:, columns.LO]
    widest_first = np.argsort(widths, kind="stable")[::-1]
    narrowest = np.empty((index.num_tokens >> columns.BLOCK_BITS) + 3, np.uint32)
    heavy.fill_narrowest(table, widest_first[widths[widest_first] < index.num_tokens], narrowest)
    classes = np.zeros((num_rows, 3), np.int64)
    counting.row_classes(offsets, index.array("row_counts"), classes)
    table[:, columns.RAW_1 : columns.RAW_2 + 1] = classes[:, :2]
    if lefts is not None:
        classes[:] = 0
        counting.row_classes(offsets, read_only(lefts), classes)
        table[:, columns.LEFT_1 : columns.LEFT_TOTAL + 1] = classes
    tokens, counts = index.array("row_tokens"), index.array("row_counts")
    buckets = np.zeros(look_up.place_buckets(offsets, index.num_symbols, table), np.uint32)
    look_up.fill_buckets(tokens, table, offsets, buckets)
    return HeavyNodes(
        table=table,
        narrowest=narrowest,
        buckets=buckets,
        bounds=read_only(flat),
        directory=read_only(directory),
        shift=shift,
        light=min(index.light, index.num_tokens),  # room is made for that many pairs of a position
        deepest=index.deepest,
        deepest_chain=chain,
        offsets=read_only(offsets),
        tokens=read_only(tokens),
        counts=read_only(counts),
        lefts=read_only(np.zeros(0, np.uint32) if lefts is None else lefts),
    )


def _aligned_zeros(num_rows: int, num_columns: int) -> np.ndarray:
    """Rows of u32 that don't straddle cache lines more than they must."""
    room = np.zeros(num_rows * num_columns + 15, np.uint32)
    skip = (-room.ctypes.data // 4) % 16
    return room[skip : skip + num_rows * num_columns].reshape(num_rows, num_columns)
