"""What stands on disk: the identity of save and open, atomic writes, and every kind of damage."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpus_index import (
    CorpusIndex,
    IndexExistsError,
    IndexFormatError,
    IndexWriteError,
    build_index,
    verify_index,
)
from corpus_index.store import IndexWriter, seal

TOKENS = np.array([1, 2, 1, 2, 3, 0, 1, 0], np.uint16)


def build(path: Path, **options: object) -> CorpusIndex:
    return build_index(TOKENS, path, end_of_document=0, metadata={"name": "small"}, **options)  # type: ignore[arg-type]


def test_open_is_what_was_built(tmp_path: Path) -> None:
    built = build(tmp_path / "index", attachments={"note.txt": b"hello"})
    with CorpusIndex.open(tmp_path / "index") as index:
        assert index.fingerprint == built.fingerprint
        assert (index.num_tokens, index.num_documents, index.vocab_size) == (8, 2, 4)
        assert index.metadata == {"name": "small", "end_of_document": 0}
        assert index.tokens.tolist() == TOKENS.tolist()
        assert index.attachment("note.txt") == b"hello"
        with pytest.raises(IndexFormatError, match=r"holds no 'other'; its attachments: note\.txt"):
            index.attachment("other")
        on_disk = {file.name: file.stat().st_size for file in (tmp_path / "index").iterdir()}
        on_disk.pop("manifest.json")
        assert index.size_bytes == on_disk


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells how a file is mapped")
def test_large_pages_are_preferred_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def preferred(index: CorpusIndex) -> bool:
        parts = Path("/proc/self/smaps").read_text().split(f"{index.path}/order.bin")
        assert len(parts) == 2
        flags = re.search(r"^VmFlags:(.*)$", parts[1], re.MULTILINE)
        assert flags is not None
        return "hg" in flags[1].split()

    with build(tmp_path / "index") as index:
        before = index.count([1])
        assert not preferred(index)
        with monkeypatch.context() as patch:
            patch.setattr("os.sysconf", lambda name: 1)  # a machine with a byte of memory
            index.prefer_large_pages()
        assert not preferred(index)
        index.prefer_large_pages()
        assert preferred(index)
        assert index.count([1]) == before


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    assert build(tmp_path / "a").fingerprint == build(tmp_path / "b", workers=1).fingerprint


def test_arrays_can_not_be_written_through(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        build(tmp_path / "index").tokens[0] = 1


def test_an_index_is_not_overwritten_unasked(tmp_path: Path) -> None:
    first = build(tmp_path / "index").fingerprint
    with pytest.raises(IndexExistsError, match="exists already"):
        build_index(np.array([1]), tmp_path / "index")
    assert CorpusIndex.open(tmp_path / "index").fingerprint == first
    build_index(np.array([1]), tmp_path / "index", overwrite=True)
    assert CorpusIndex.open(tmp_path / "index").num_tokens == 1
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_what_is_not_an_index_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("words")
    (tmp_path / "file").write_text("words")
    for name in ("precious", "file"):
        with pytest.raises(IndexExistsError, match="is not an index, so it is not overwritten"):
            build(tmp_path / name, overwrite=True)
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "words"


def test_a_failing_overwrite_keeps_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(tmp_path / "index").fingerprint

    def full(self: IndexWriter, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(IndexWriter, "_write", full)
    with pytest.raises(IndexWriteError, match=r"no space to write .* nothing was kept"):
        build(tmp_path / "index", overwrite=True)
    assert CorpusIndex.open(tmp_path / "index").fingerprint == first
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexWriteError, match=r"can't be written \(.*\): choose a folder"):
        build(tmp_path / "file" / "index")


def test_a_build_that_is_killed_leaves_nothing_that_opens(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import numpy as np
        from corpus_index import build_index
        def slow(stage, share):
            if stage == "write":
                print("here", flush=True)
                import time; time.sleep(60)
        build_index(np.arange(1000) % 7, {str(tmp_path / "index")!r}, progress=slow)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"here"
        process.send_signal(signal.SIGKILL)
    left = list(tmp_path.iterdir())
    assert [path.name.startswith(".index.building-") for path in left] == [True]
    for path in (tmp_path / "index", left[0]):
        with pytest.raises(IndexFormatError):
            CorpusIndex.open(path)
    assert build(tmp_path / "index").num_tokens == 8


def _truncate(folder: Path) -> None:
    os.truncate(folder / "order.bin", 8)


def _edit_array(folder: Path) -> None:
    content = bytearray((folder / "next_tokens.bin").read_bytes())
    content[0] ^= 1
    (folder / "next_tokens.bin").write_bytes(content)


def _edit_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"num_tokens": 8', '"num_tokens": 7'))


def _break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def _foreign(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": "something else"}')


def _newer(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["version"] = 99
    manifest["fingerprint"] = seal(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _lose_file(folder: Path) -> None:
    (folder / "near.bin").unlink()


@pytest.mark.parametrize(
    ("damage", "message", "seen_at_open"),
    [
        (_truncate, r"order.bin has 8 bytes instead of 32", True),
        (_edit_array, r"next_tokens.bin was changed", False),
        (_edit_manifest, r"manifest.json was changed", True),
        (_break_manifest, r"manifest.json can't be read", True),
        (_foreign, r"describes no corpus-index", True),
        (_newer, r"format version 99, this program reads up to 4", True),
        (_lose_file, r"near.bin is missing", True),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Callable[[Path], None], message: str, seen_at_open: bool) -> None:
    path = tmp_path / "index"
    build(path)
    damage(path)
    if seen_at_open:
        with pytest.raises(IndexFormatError, match=message):
            CorpusIndex.open(path)
    with pytest.raises(IndexFormatError, match=message):
        verify_index(path)


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match="there is no index at"):
        CorpusIndex.open(tmp_path / "nowhere")
    with pytest.raises(IndexFormatError, match=r"is not an index: it has no manifest\.json"):
        CorpusIndex.open(tmp_path)


@pytest.mark.parametrize("name", ["a/b", "manifest.json", "tokens.bin"])
def test_names_that_can_not_be_attached(tmp_path: Path, name: str) -> None:
    with pytest.raises(IndexWriteError, match="can't be attached"):
        build(tmp_path / "index", attachments={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_too_many_open_files_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "index").close()
    real = os.open

    def few(path: object, *arguments: object, **named: object) -> int:
        if path == "near.bin":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", few)
    with pytest.raises(IndexFormatError, match=r"near\.bin can't be read \(Too many open files\): close other files"):
        CorpusIndex.open(tmp_path / "index")
