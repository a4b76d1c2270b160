"""What the tests of the teacher's side share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from corpus_teacher.storage import UrlPath
from corpus_teacher.targets.soft import SoftTargets


@pytest.fixture(scope="session")
def random_targets() -> Callable[..., SoftTargets]:
    """A function that makes random, valid targets from a seed."""
    return _random_targets


def _random_targets(
    seed: int, positions: int = 6, vocab_size: int = 7, invalid: bool = False, entries: int = 4
) -> SoftTargets:
    """Targets with 0 to `entries` pairs a position; one pair in three is a small negative correction."""
    generator = np.random.default_rng(seed)
    base = generator.dirichlet(np.ones(vocab_size))
    offsets, token_ids, probs, rest = [0], [], [], []
    for _ in range(positions):
        count = int(generator.integers(0, min(entries, vocab_size) + 1))
        mass = generator.dirichlet(np.ones(count + 1))
        tokens = generator.permutation(vocab_size)[:count]
        if count and generator.random() < 0.33:
            moved = mass[0] + 0.5 * mass[-1] * base[tokens[0]]
            mass[0] -= moved
            mass[-1] += moved
        token_ids.extend(tokens)
        probs.extend(mass[:-1])
        rest.append(mass[-1])
        offsets.append(len(token_ids))
    rest = np.array(rest)
    spread = np.array([rest[q] * base for q in range(positions)])
    for q in range(positions):
        np.add.at(spread[q], token_ids[offsets[q] : offsets[q + 1]], probs[offsets[q] : offsets[q + 1]])
    if (spread < 0).any():
        return _random_targets(seed + 1000, positions, vocab_size, invalid, entries)
    valid = generator.random(positions) < 0.7 if invalid else np.ones(positions, bool)
    evidence = generator.integers(0, 9, positions)
    return SoftTargets.from_arrays(
        offsets, np.array(token_ids, np.int64), probs, rest, base, evidence, evidence * 3, rest * 0.1, valid
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of the files of which bytes were asked for."""
    asked: list[str] = []
    read_range = UrlPath.read_range

    def noted(path: UrlPath, begin: int, end: int) -> bytes:
        asked.append(str(path))
        return read_range(path, begin, end)

    monkeypatch.setattr(UrlPath, "read_range", noted)
    return asked
