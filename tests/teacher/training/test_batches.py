"""Windows: all of the corpus once, in an order that the seed decides, and cheap to send to a worker."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from corpus_index import build_index
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.data.windows import TokenWindows
from corpus_teacher.errors import ConfigError, InputError


@given(count=st.integers(1, 50), length=st.integers(1, 10), seed=st.integers(0, 5))
def test_every_window_once(count: int, length: int, seed: int) -> None:
    tokens = np.arange(count)
    if count < length:
        with pytest.raises(ConfigError, match="don't fill one window"):
            TokenWindows(tokens, length, seed=seed)
        return
    windows = TokenWindows(tokens, length, seed=seed)
    rows = sorted(windows[number]["input_ids"].tolist() for number in range(len(windows)))
    expected = tokens[: count // length * length].reshape(-1, length).tolist()
    assert rows == expected


def test_the_seed_decides_the_order() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    one, same, other = (TokenWindows(tokens, 10, seed=seed) for seed in (1, 1, 2))
    order = [one[number]["position"] for number in range(100)]
    assert order == [same[number]["position"] for number in range(100)]
    assert order != [other[number]["position"] for number in range(100)]
    limited = TokenWindows(tokens, 10, seed=1, limit=7)
    assert [limited[number]["position"] for number in range(len(limited))] == order[:7]


def test_document_starts() -> None:
    windows = TokenWindows(np.arange(12), 3, doc_starts=np.array([0, 0, 4, 6, 12]), shuffle=False)
    assert [windows[number]["starts_document"] for number in range(4)] == [True, False, True, False]
    unknown = TokenWindows(np.arange(12), 3, shuffle=False)
    assert [unknown[number]["starts_document"] for number in range(4)] == [True, False, False, False]
    assert windows[0]["input_ids"].dtype == np.int64


def test_a_map_is_pickled_as_its_path(tmp_path: Path) -> None:
    np.arange(100_000, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    tokens = np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r")
    windows = TokenWindows(tokens, 100, seed=3)
    data = pickle.dumps(windows)
    assert len(data) < 20_000
    again = pickle.loads(data)
    np.testing.assert_array_equal(again[5]["input_ids"], windows[5]["input_ids"])
    part = TokenWindows(tokens[50_000:], 100, shuffle=False)
    assert pickle.loads(pickle.dumps(part))[0]["input_ids"][0] == 50_000


def test_a_window_needs_a_length() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        TokenWindows(np.arange(3), 0)


def test_windows_of_an_index_pickle_small(tmp_path: Path) -> None:
    """Spawned workers get the path of the index's tokens, not the tokens."""
    index = build_index(np.arange(100_000) % 50, tmp_path / "index")
    windows = TokenWindows(index.tokens, 1000, seed=3)
    packed = pickle.dumps(windows)
    assert len(packed) < 10_000
    assert np.array_equal(pickle.loads(packed)[7]["input_ids"], windows[7]["input_ids"])


def test_windows_of_an_index_are_not_unpickled_over_its_successor(tmp_path: Path) -> None:
    with build_index(np.arange(100) % 5, tmp_path / "index") as index:
        windows = TokenWindows(index.tokens, 10, shuffle=False)
        packed = pickle.dumps(windows)
        build_index(np.arange(100) % 5 + 1, tmp_path / "index", overwrite=True).close()
        for data in (packed, pickle.dumps(windows)):
            with pytest.raises(InputError, match=r"tokens\.bin was replaced since the windows were cut"):
                pickle.loads(data)
        assert windows[0]["input_ids"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(InputError, match=r"tokens\.bin can't be read .*: cut the windows again"):
        pickle.loads(packed)


def test_windows_of_a_file_are_not_unpickled_over_its_successor(tmp_path: Path) -> None:
    np.arange(100, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    packed = pickle.dumps(TokenWindows(np.memmap(tmp_path / "tokens.bin", np.uint16, "r"), 10))
    np.arange(99, dtype=np.uint16).tofile(tmp_path / "other.bin")
    (tmp_path / "other.bin").replace(tmp_path / "tokens.bin")
    with pytest.raises(InputError, match="was replaced"):
        pickle.loads(packed)
