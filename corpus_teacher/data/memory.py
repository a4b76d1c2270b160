"""How much memory a build may take, and how many tokens of a corpus that is at a time."""

from __future__ import annotations

import os
import re
from pathlib import Path

from corpus_teacher.errors import ConfigError

_BYTES_PER_TOKEN = {False: 22, True: 28}
"""Of a build's peak (19 and 25 in 100 million tokens of 16 and of 32 bits), with some room."""
_MOST_TOKENS = 2**31 - 2**16  # from here on ranks take 8 bytes while they are sorted
_LEAST_TOKENS = 1 << 20
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_UNLIMITED = 1 << 60


def parse_bytes(text: str) -> int:
    """A number of bytes as people write it: 4G, 512M, 1.5g, 100000.

    Raises
    ------
    ConfigError
        If it is none.

    Examples
    --------
    >>> parse_bytes("4G"), parse_bytes("1.5M"), parse_bytes("2000")
    (4294967296, 1572864, 2000)
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"{text!r} is no amount of memory: write 4G, 512M or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2]])


def tokens_within(memory_bytes: int, vocab_size: int) -> int:
    """Tokens of a shard whose build takes at most so much memory, never less than a million.

    Parameters
    ----------
    memory_bytes : int
    vocab_size : int
        V: ids have 32 bits above 65,536.
    """
    wanted = memory_bytes // _BYTES_PER_TOKEN[vocab_size > 2**16]
    return max(_LEAST_TOKENS, min(wanted, _MOST_TOKENS))


def free_memory_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """What this process may still take: the machine's available memory, or what its control group or its own limit
    (RLIMIT_AS) leaves where that is less.

    Where the system doesn't tell, a quarter of the machine's memory; page cache counts as free.
    """
    found = [_available(proc), *_groups(proc, cgroups), *_address_space(proc)]
    return max(0, min(found))


def _available(proc: Path) -> int:
    """The machine's available memory."""
    try:
        text = (proc / "meminfo").read_text()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else _UNLIMITED


def _address_space(proc: Path) -> list[int]:
    """What is left of the addresses that the process may use, where they are limited."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int((proc / "self" / "statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError, IndexError):
        return []
    return [] if limit == resource.RLIM_INFINITY else [limit - used]


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
            if limit is not None and limit < _UNLIMITED:
                left.append(limit - (used or 0) + _cached(group))
    return left


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, or "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cached(group: Path) -> int:
    """Page cache of a group that can be given up at any time."""
    try:
        found = re.search(r"^(?:total_)?inactive_file (\d+)$", (group / "memory.stat").read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0
