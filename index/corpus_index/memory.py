"""How much memory a build needs, and how much this process may use: compared before anything is sorted.

The naive way is to begin, and to be killed after an hour. What a build needs follows from a few numbers (`build_bytes`,
measured: bench/results/build-memory.json); what there is, the system says: the machine's available memory, control
groups and RLIMIT_AS.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from corpus_index.errors import InsufficientMemoryError

UNLIMITED = 1 << 60
_RANKS = 2**31  # from here on ranks take 8 bytes while they are sorted
_PER_TOKEN = {2: 24, 4: 32}
"""Bytes at the peak, by the bytes of a symbol: measured while the disk was slow, so that files waited to be written."""
_PER_WIDE_RANK = 12  # more, where ranks take 8 bytes
_PER_DOCUMENT = 48
_PER_SYMBOL, _PER_SYMBOL_AND_WORKER = 56, 12
_FIXED = 16 << 20
_SMALL_BYTES = 32 << 20  # that a process has anyhow
_THREADS_ADDRESSES = 2 * (72 << 20)
"""What two threads of a build, a worker and a writer, reserve of the addresses: a heap of 64 MiB and a stack of 8."""


def build_bytes(num_tokens: int, num_documents: int = 1, vocab_size: int = 2**15, workers: int = 1) -> int:
    """Memory that the build of one index takes at most, beside the caller's tokens.

    Parameters
    ----------
    num_tokens : int
        N of the index, or of one shard.
    num_documents : int
    vocab_size : int
        V: symbols of 32 bits from 65,536 on. Where it is far larger than the corpus, the ids that occur count.
    workers : int
        Threads, each of which counts the symbols.

    Examples
    --------
    >>> build_bytes(100_000_000) // 10**6
    2419
    """
    symbols = vocab_size if vocab_size <= 65_536 + 2 * num_tokens else num_tokens
    wide = 4 if symbols >= 2**16 else 2
    per_token = _PER_TOKEN[wide] + (_PER_WIDE_RANK if num_tokens + num_documents >= _RANKS else 0)
    per_symbol = _PER_SYMBOL + _PER_SYMBOL_AND_WORKER * workers
    return _FIXED + num_tokens * per_token + num_documents * _PER_DOCUMENT + symbols * per_symbol


def check_memory(needed: int, what: str, way_out: str, memory: int | None = None) -> None:
    """Refuse what needs more memory than there is.

    Parameters
    ----------
    needed : int
        Bytes; below 32 MiB everything passes.
    what, way_out : str
        "the build of 5 tokens", "cut it into shards".
    memory : int, optional
        Bytes that it may take, whatever the machine has available; limits of control groups and of the process hold
        all the same. Default: what is available.

    Raises
    ------
    InsufficientMemoryError
    """
    if needed <= _SMALL_BYTES:
        return
    there = free_memory_bytes() if memory is None else min(memory, left_by_limits())
    if needed > there:
        raise InsufficientMemoryError(
            f"{what} needs about {needed / 1e9:.2f} GB of memory, and {there / 1e9:.2f} GB are there for it: {way_out}"
        )


def free_memory_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """What this process may still take: the machine's available memory, or what its control group or its own limit
    (RLIMIT_AS) leaves where that is less.

    Where the system doesn't tell, a quarter of the machine's memory; page cache counts as free.
    """
    return max(0, min(_available(proc), left_by_limits(proc, cgroups)))


def left_by_limits(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """What control groups and RLIMIT_AS leave; a process that takes more is killed, or gets no more."""
    return max(0, min([UNLIMITED, *_groups(proc, cgroups), *_address_space(proc)]))


def _available(proc: Path) -> int:
    """The machine's available memory."""
    try:
        text = (proc / "meminfo").read_text()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else UNLIMITED


def _address_space(proc: Path) -> list[int]:
    """What is left of the addresses that the process may use, threads apart, where they are limited."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int((proc / "self" / "statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError, IndexError):
        return []
    return [] if limit == resource.RLIM_INFINITY else [limit - used - _THREADS_ADDRESSES]


def _groups(proc: Path, cgroups: Path) -> list[int]:
    """What is left in the control groups that hold this process, of either version."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        unified = controllers == ""
        if not unified and "memory" not in controllers.split(","):
            continue
        top = cgroups if unified else cgroups / "memory"
        files = ("memory.max", "memory.current") if unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        folder = top / name.lstrip("/")
        for group in [folder, *folder.parents]:
            if group == top.parent:
                break
            limit, used = (_number(group / file) for file in files)
            if limit is not None and limit < UNLIMITED:
                left.append(limit - (used or 0) + _cached(group))
    return left


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, or "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cached(group: Path) -> int:
    """Page cache of a group, which can be given up at any time."""
    try:
        told = (group / "memory.stat").read_text()
    except OSError:
        return 0
    found = dict(re.findall(r"^((?:total_)?(?:in)?active_file) (\d+)$", told, re.M))
    return max(sum(int(found.get(f"{of}{kind}active_file", 0)) for kind in ("", "in")) for of in ("", "total_"))
