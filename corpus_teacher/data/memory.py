"""How much memory a build may take, and how many tokens of a corpus that is at a time."""

from __future__ import annotations

import re

from corpus_index.memory import build_bytes, free_memory_bytes

from corpus_teacher.errors import ConfigError

__all__ = ["free_memory_bytes", "parse_bytes", "tokens_within"]

_MOST_TOKENS = 2**31 - 2**16  # from here on ranks take 8 bytes while they are sorted
_LEAST_TOKENS = 1 << 20
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


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


def tokens_within(
    memory_bytes: int, vocab_size: int, documents_per_token: float = 0.0, *, workers: int = 1, copies: int = 0
) -> int:
    """Tokens of a shard whose build takes at most so much memory, never less than a million.

    Parameters
    ----------
    memory_bytes : int
    vocab_size : int
        V: ids have 32 bits above 65,536.
    documents_per_token : float
        D / N of the corpus.
    workers : int
        Threads of the build.
    copies : int
        Of the text that the build holds besides: two where shards are joined.
    """
    wide = vocab_size > 2**16
    some = 1 << 26
    fixed = build_bytes(0, 0, min(vocab_size, 2**16), workers)
    needed = build_bytes(some, int(some * documents_per_token), vocab_size, workers) - fixed
    per_token = needed / some + copies * (4 if wide else 2)
    wanted = int(max(0, memory_bytes - fixed) / per_token)
    return max(_LEAST_TOKENS, min(wanted, _MOST_TOKENS))
