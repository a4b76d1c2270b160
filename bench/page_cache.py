"""Targets where the page cache holds only a part of what they read: do they still come, and how much slower.

`python -m bench.page_cache INDEX --share 0.25 --out bench/results/page-cache.json` asks an index twice: with all of its
files in the page cache, and while a thread keeps no more of them there than that share of the hot bytes (what targets
read at every position, `CorpusIndex.hot_bytes`). The thread looks every few milliseconds which pages are in memory
(mincore), and hands back random runs of them until few enough are left (MADV_PAGEOUT), so it needs no control group and
no other process feels it. Pages are read one by one (MADV_RANDOM). Random runs go, not those that were not read for
longest, so the system itself would do better. Above some millions of tokens the thread can't keep up: `seen_bytes` says
what there was. `--group` is for root, where memory's control groups (v1) are mounted: the process enters a group that
may hold that share and some memory of its own, so the system itself decides what goes. Answers of both are compared.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import CorpusIndex

PAGE = mmap.PAGESIZE
PAGEOUT = 21  # MADV_PAGEOUT of Linux 5.4
RUN_PAGES = 32
PAUSE_S = 0.002
GROUPS = Path("/sys/fs/cgroup/memory")
OWN_BYTES = 1 << 25  # what a batch takes that is no file
BATCH, ROW, BATCHES, TIGHT_BATCHES = 64, 128, 12, 2
OPTIONS: dict[str, Any] = {"estimator": "witten-bell", "max_order": 5, "leave_out": "self"}


class Keeper:
    """Keeps no more than so many bytes of an index's files in memory while it is entered."""

    def __init__(self, index: CorpusIndex, most_bytes: int) -> None:
        self.arrays = [index.array(name) for name in index.array_shapes()]
        self.most_pages, self.seen = most_bytes // PAGE, list[int]()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._rng = np.random.default_rng(0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep)

    def resident(self) -> list[np.ndarray]:
        """For each array, which of its pages are in memory."""
        found = []
        for array in self.arrays:
            begin = array.ctypes.data & ~(PAGE - 1)
            pages = np.zeros(-(-(array.ctypes.data + array.nbytes - begin) // PAGE), np.uint8)
            if self._libc.mincore(ctypes.c_void_p(begin), ctypes.c_size_t(pages.size * PAGE), pages.ctypes) != 0:
                raise OSError(ctypes.get_errno(), "mincore")
            found.append(np.flatnonzero(pages & 1))
        return found

    def hand_back(self, most_pages: int) -> int:
        """Hand random runs of pages back until so many are left; returns how many there were."""
        there = self.resident()
        count = sum(pages.size for pages in there)
        runs = [(k, run) for k, pages in enumerate(there) for run in np.unique(pages // RUN_PAGES).tolist()]
        left = count
        for place in self._rng.permutation(len(runs)).tolist():
            if left <= most_pages:
                break
            k, run = runs[place]
            array, pages = self.arrays[k], there[k]
            begin = (array.ctypes.data & ~(PAGE - 1)) + run * RUN_PAGES * PAGE
            end = min(begin + RUN_PAGES * PAGE, -(-(array.ctypes.data + array.nbytes) // PAGE) * PAGE)
            self._libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), PAGEOUT)
            left -= int(np.searchsorted(pages, (run + 1) * RUN_PAGES) - np.searchsorted(pages, run * RUN_PAGES))
        return count

    def _keep(self) -> None:
        while not self._ended.is_set():
            self.seen.append(self.hand_back(self.most_pages))
            time.sleep(PAUSE_S)

    def _advise(self, advice: int) -> None:
        for array in self.arrays:
            begin = array.ctypes.data & ~(PAGE - 1)
            self._libc.madvise(
                ctypes.c_void_p(begin), ctypes.c_size_t(array.ctypes.data + array.nbytes - begin), advice
            )

    def __enter__(self) -> Keeper:
        self._advise(mmap.MADV_RANDOM)  # one page a read: what is read ahead would push others out
        for _ in range(3):
            self.hand_back(0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._advise(mmap.MADV_NORMAL)


class Group:
    """A control group that this process is in while it is entered; see `Keeper`, whose pages it begins without."""

    def __init__(self, index: CorpusIndex, most_bytes: int) -> None:
        self._keeper, self._limit = Keeper(index, 0), most_bytes + OWN_BYTES
        self._folder = GROUPS / f"corpus-teacher-{os.getpid()}"
        own = re.search(r"^\d+:memory:/(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
        self._before = GROUPS / (own[1] if own else "")
        self.seen = [0]

    def __enter__(self) -> Group:
        for _ in range(3):
            self._keeper.hand_back(0)
        self._folder.mkdir()
        (self._folder / "memory.limit_in_bytes").write_text(str(self._limit))
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))
        return self

    def __exit__(self, *_: object) -> None:
        cached = re.search(r"^cache (\d+)", (self._folder / "memory.stat").read_text(), re.M)
        self.seen = [int(cached[1]) // PAGE if cached else 0]
        (self._before / "cgroup.procs").write_text(str(os.getpid()))
        self._folder.rmdir()


def targets(index: CorpusIndex, batches: int) -> tuple[list[np.ndarray], float]:
    """Answers of some batches of the corpus's own text, and positions per second."""
    rng, answers, total_s = np.random.default_rng(1), [], 0.0
    for _ in range(batches):
        places = rng.integers(0, index.num_tokens - ROW - 1, BATCH)
        rows = index.tokens[places[:, None] + np.arange(ROW + 1)].astype(np.int64)
        begin = time.perf_counter()
        found = index.smoothed_targets(rows[:, :-1], rows[:, 1:], **OPTIONS)
        total_s += time.perf_counter() - begin
        answers.append(found.rest)
    return answers, batches * BATCH * ROW / total_s


def measure(path: Path, share: float, *, group: bool = False) -> dict[str, Any]:
    """Both rates."""
    with CorpusIndex.open(path) as index:
        for name in index.array_shapes():  # all into memory, and kernels compiled
            np.asarray(index.array(name)).max(initial=0)
        targets(index, BATCHES)
        expected, free = targets(index, BATCHES)
        with (Group if group else Keeper)(index, int(share * index.hot_bytes)) as keeper:
            answers, tight = targets(index, TIGHT_BATCHES)
        for one, other in zip(answers, expected, strict=False):
            np.testing.assert_array_equal(one, other)
        return {
            "bench": "page_cache",
            "tokens": index.num_tokens,
            "index_bytes": sum(index.size_bytes.values()),
            "hot_bytes": index.hot_bytes,
            "share": share,
            "group": group,
            "kept_bytes": int(share * index.hot_bytes),
            "seen_bytes": int(np.mean(keeper.seen)) * PAGE,
            "free_positions_per_s": free,
            "tight_positions_per_s": tight,
            "load_at_start": os.getloadavg()[0],
        }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--group", action="store_true", help="a control group in place of a thread")
    arguments = parser.parse_args()
    result = measure(arguments.index, arguments.share, group=arguments.group)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
