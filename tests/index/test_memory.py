"""Builds that need more memory than there is are refused before anything is sorted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import corpus_index
import numpy as np
import pytest
from corpus_index import InsufficientMemoryError, append_documents, build_index, merge_shards
from corpus_index import memory as memory_module
from corpus_index.memory import build_bytes

TOKENS = np.tile(np.arange(1, 6, dtype=np.uint16), 40)
STARTS = np.arange(0, 201, 20)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> int:
    """A process that may use as much as part of this corpus needs; the corpus is small, so nothing is too small."""
    there = build_bytes(140, 7, 6) + 10
    monkeypatch.setattr(memory_module, "_SMALL_BYTES", 0)
    for module in (memory_module, corpus_index.build):
        monkeypatch.setattr(module, "free_memory_bytes", lambda: there)
    return there


def test_a_build_that_needs_too_much_is_refused_at_once(tmp_path: Path, little: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("corpus_index.build.compile_ahead", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(InsufficientMemoryError, match=r"the build of 200 tokens needs about .* in shards \(shard_tok"):
        build_index(TOKENS, tmp_path / "index", doc_starts=STARTS, workers=1)
    with pytest.raises(MemoryError, match="a document can't be cut: give it in pieces"):
        build_index(TOKENS, tmp_path / "index", workers=1)
    assert not list(tmp_path.iterdir())


def test_what_the_sentence_advises_passes(tmp_path: Path, little: int) -> None:
    with pytest.raises(InsufficientMemoryError) as caught:
        build_index(TOKENS, tmp_path / "index", doc_starts=STARTS, workers=1)
    advised = int(str(caught.value).partition("shard_tokens=")[2].partition(" ")[0])
    with build_index(TOKENS, tmp_path / "index", doc_starts=STARTS, workers=1, shard_tokens=advised) as index:
        assert len(index.shards) > 1
        assert index.count([1, 2]) == 40


def test_memory_that_is_given_counts_instead(tmp_path: Path, little: int) -> None:
    build_index(TOKENS, tmp_path / "index", doc_starts=STARTS, memory=10**9).close()
    with pytest.raises(InsufficientMemoryError, match=r"and 0\.00 GB are there"):
        build_index(TOKENS, tmp_path / "other", doc_starts=STARTS, memory=1)


def test_limits_hold_whatever_is_given(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(memory_module, "_SMALL_BYTES", 0)
    monkeypatch.setattr(memory_module, "left_by_limits", lambda: 100)
    with pytest.raises(InsufficientMemoryError):
        build_index(TOKENS, tmp_path / "index", memory=10**12)


def test_what_changes_an_index_is_refused_too(tmp_path: Path, little: int) -> None:
    """Append and merge leave the index as it was."""
    path = tmp_path / "index"
    build_index(TOKENS, path, doc_starts=STARTS, memory=10**9, shard_tokens=100).close()
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for change in (
        lambda: append_documents(path, TOKENS, doc_starts=STARTS, workers=1),
        lambda: merge_shards(path, workers=1),
    ):
        with pytest.raises(InsufficientMemoryError, match="needs about"):
            change()
        assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    with append_documents(path, TOKENS, doc_starts=STARTS, workers=1, shard_tokens=90) as index:
        assert index.num_tokens == 400
    with merge_shards(path, workers=1, memory=10**9) as index:
        assert index.count([1, 2]) == 80


CHILD = """
import resource, sys
import numpy as np
from corpus_index import InsufficientMemoryError, build_index
from corpus_index.memory import _THREADS_ADDRESSES, build_bytes
count = 2_000_000
tokens = np.random.default_rng(0).zipf(1.3, count).clip(max=50_000).astype(np.uint16)
build_index(tokens[:50_000], sys.argv[1] + "/small", vocab_size=60_000).close()  # machine code is loaded before
page = resource.getpagesize()
used = int(open("/proc/self/statm").read().split()[0]) * page
limit = used + _THREADS_ADDRESSES + int(float(sys.argv[2]) * build_bytes(count, 1, 60_000, 1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    build_index(tokens, sys.argv[1] + "/index", vocab_size=60_000, workers=1).close()
except InsufficientMemoryError as error:
    print("refused", error)
else:
    print("built")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS and /proc are Linux's")
@pytest.mark.slow
@pytest.mark.parametrize(("share", "outcome"), [(0.7, "refused the build of 2,000,000 tokens"), (1.7, "built")])
def test_a_process_with_a_limit_builds_or_is_refused(tmp_path: Path, share: float, outcome: str) -> None:
    """With what it is said to need, and room for the files that are mapped at the end, the build ends well."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(share)], capture_output=True, text=True, timeout=600
    )
    assert done.stdout.startswith(outcome), done.stdout + done.stderr


def test_what_is_said_is_what_was_measured_and_little_more() -> None:
    """Every peak of a build that was measured is below what `build_bytes` says, which is at most twice as much."""
    path = Path(__file__).parents[2] / "bench" / "results" / "build-memory.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["memory"]
    assert len(rows) >= 10
    for row in rows:
        said = build_bytes(row["num_tokens"], row["num_documents"], row["vocab_size"], row["workers"])
        assert row["peak_bytes"] <= said <= 2.1 * row["peak_bytes"] + (16 << 20), row
