"""Packed files that give more than they say, and lines longer than the memory: refused in a sentence."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
import zstandard

from corpus_teacher.data import unpacking
from corpus_teacher.data.benchmarks import read_benchmark
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.readers import ReadOptions, read_json_lines
from corpus_teacher.data.sources import find_sources
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.study.plans import DataPlan
from corpus_teacher.training.settings import DataSettings

LINE = b'{"text": "' + b"x" * 8000 + b'"}\n'
SIZE = 1 << 22


def packed(folder: Path, suffix: str, content: bytes) -> Path:
    path = folder / f"bomb.jsonl{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".gz" else zstandard.compress(content))
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: Any, suffix: str) -> None:
    """Beyond the bytes that any file may give, and only there; a higher ratio lets it pass."""
    content = LINE * (SIZE // len(LINE))
    path = packed(tmp_path, suffix, content)
    count = content.count(b"\n")
    assert path.stat().st_size * 200 < len(content)
    documents = find_sources([str(path)]).documents
    assert sum(1 for _ in documents(ReadOptions(), ReadLog())) == count  # 4 MiB are no matter
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"bomb.jsonl.* unpacks to more than 200 times its size .* unpack_ratio \(inf"):
        list(documents(ReadOptions(), ReadLog()))
    for ratio in (1e6, float("inf")):
        assert sum(1 for _ in documents(ReadOptions(unpack_ratio=ratio), ReadLog())) == count
    with pytest.raises(InputError, match="more than 50 times its size"):
        list(documents(ReadOptions(unpack_ratio=50), ReadLog()))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_ordinary_text_is_never_refused(tmp_path: Path, monkeypatch: Any, suffix: str) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 10)
    content = b"".join(b'{"text": "document %d of many"}\n' % number for number in range(20_000))
    path = packed(tmp_path, suffix, content)
    assert sum(1 for _ in read_json_lines(path, ReadOptions(), ReadLog())) == 20_000


def test_zstd_is_unpacked_in_small_steps(tmp_path: Path) -> None:
    """A file of a few kilobytes never gives all of what it holds at once, whatever its blocks say."""
    path = packed(tmp_path, ".zst", b"\0" * (1 << 28))
    assert path.stat().st_size > 2 * unpacking._ZSTD_STEP_BYTES
    with path.open("rb") as raw:
        file = unpacking._ZstdFile(raw)
        total = largest = 0
        while size := file.readinto(bytearray(1 << 16)):
            largest = max(largest, size + len(file._ready))
            total += size
    assert total == 1 << 28
    assert largest <= 1 << 26


def test_a_benchmark_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    path = packed(tmp_path, ".gz", LINE * (SIZE // len(LINE)))
    with pytest.raises(InputError, match="unpacks to more than 200 times"):
        list(read_benchmark([str(path)]))
    assert sum(1 for _ in read_benchmark([str(path)], unpack_ratio=float("inf"))) == SIZE // len(LINE)


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), "many", None, True])
def test_a_ratio_is_a_number(ratio: Any) -> None:
    for make in (
        lambda: ReadOptions(unpack_ratio=ratio),
        lambda: DataSettings("index", ("held.txt",), unpack_ratio=ratio),
        lambda: DataPlan(unpack_ratio=ratio),
    ):
        with pytest.raises(ConfigError, match=r"unpack_ratio .* must be a number, 1 or more"):
            make()


def test_a_line_longer_than_the_memory_is_one_sentence(tmp_path: Path, monkeypatch: Any) -> None:
    """Refused before it is read as a whole, or left out; those around it are read."""
    path = tmp_path / "long.jsonl"
    path.write_bytes(LINE + b'{"text": "' + b"x" * (3 << 20) + b'"}\n' + LINE)
    monkeypatch.setattr("corpus_teacher.data.readers.most_line_bytes", lambda: 1 << 20)
    monkeypatch.setattr("corpus_teacher.data.benchmarks.most_line_bytes", lambda: 1 << 20)
    with pytest.raises(InputError, match="line 2 is longer than 1 MB, a tenth of the free memory"):
        list(read_json_lines(path, ReadOptions(), ReadLog()))
    with pytest.raises(InputError, match="line 2 is longer than 1 MB"):
        list(read_benchmark([str(path)]))
    log = ReadLog()
    assert len(list(read_json_lines(path, ReadOptions(errors="skip"), log))) == 2
    assert log.num_skipped == 1


@pytest.mark.parametrize("most", range(1, 9))
def test_lines_are_those_of_the_file_where_they_fit(most: int) -> None:
    content = b"a\n\nbcd\nefghij\nk"
    expected = [line if len(line) <= most else None for line in io.BytesIO(content)]
    assert list(unpacking.lines_of(io.BytesIO(content), most)) == expected
