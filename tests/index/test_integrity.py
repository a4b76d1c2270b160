"""The check of an index's files: at the first opening, remembered outside of it, and one sentence where it fails."""

from __future__ import annotations

import json
import os
import pickle
import re
import threading
from pathlib import Path

import corpus_index.integrity as integrity_module
import numpy as np
import pytest
from corpus_index import CorpusIndex, IndexFormatError, QueryError, build_index
from corpus_index.manifest import file_names
from corpus_index.store import seal


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stamps yet, and every index large enough for one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(integrity_module, "_SMALL_BYTES", 0)
    monkeypatch.setattr(integrity_module, "_checked", set())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tokens = np.random.default_rng(0).integers(1, 50, 2_000)
    build_index(tokens, tmp_path / "index", doc_starts=[0, 700, 2_000], attachments={"note.txt": b"hello"}).close()
    return tmp_path / "index"


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders whose files were compared with their checksums."""
    made: list[Path] = []
    compare = integrity_module.compare

    def counted(path: Path, *rest: object) -> None:
        made.append(path)
        compare(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(integrity_module, "compare", counted)
    return made


def forget() -> None:
    integrity_module._checked.clear()


def flip(file: Path, place: int = -1) -> None:
    """Change a bit, and no time of change."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def stamps(path: Path) -> list[Path]:
    return list((path.parent / "cache" / "corpus-index" / "checked").iterdir())


def test_the_first_opening_checks_and_later_ones_find_its_stamp(path: Path, comparisons: list[Path]) -> None:
    assert len(stamps(path)) == 1  # of the builder
    CorpusIndex.open(path).close()
    forget()  # as in another process
    CorpusIndex.open(path).close()
    assert comparisons == []
    stamps(path)[0].unlink()
    forget()
    CorpusIndex.open(path).close()
    assert comparisons == [path]
    assert stamps(path)[0].read_text().startswith(f"{path} ")


def test_who_writes_an_index_does_not_read_it_again(tmp_path: Path, comparisons: list[Path]) -> None:
    """What was written was hashed; a file that is changed before it is opened is found out."""
    tokens = np.arange(1, 500) % 7
    build_index(tokens, tmp_path / "index", layout="compact").close()
    assert comparisons == []
    forget()
    CorpusIndex.open(tmp_path / "index").close()
    assert comparisons == []
    flip(tmp_path / "index" / "common.bin")
    forget()
    with pytest.raises(IndexFormatError, match=r"common\.bin"):
        CorpusIndex.open(tmp_path / "index")


def test_always_and_never(path: Path, comparisons: list[Path]) -> None:
    for stamp in stamps(path):
        stamp.unlink()
    forget()
    CorpusIndex.open(path, check="never").close()
    assert comparisons == []
    assert stamps(path) == []
    for _ in range(2):
        CorpusIndex.open(path, check="always").close()
    assert comparisons == [path, path]
    with pytest.raises(QueryError, match="check is 'sometimes': give 'always', 'first'"):
        CorpusIndex.open(path, check="sometimes")  # type: ignore[arg-type]


@pytest.mark.parametrize("summed", [True, False])
def test_any_changed_file_is_named(path: Path, summed: bool) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    if not summed:  # an index that was built before there were CRCs
        for _, entry in file_names(manifest):
            del entry["crc32"]
        manifest["fingerprint"] = seal(manifest)
        (path / "manifest.json").write_text(json.dumps(manifest))
    for name, entry in file_names(manifest):
        if entry["bytes"] == 0:
            continue
        good = (path / name).read_bytes()
        for place in (0, entry["bytes"] // 2, -1):
            flip(path / name, place)
            for check in ("first", "always"):
                with pytest.raises(
                    IndexFormatError, match=re.escape(f"{path / name} was changed after it was written")
                ):
                    CorpusIndex.open(path, check=check)  # type: ignore[arg-type]
            (path / name).write_bytes(good)
    CorpusIndex.open(path, check="always").close()


def test_blocks_are_summed_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity_module, "SUMMED_BYTES", 64)
    monkeypatch.setattr("corpus_index.manifest.SUMMED_BYTES", 64)
    monkeypatch.setattr("corpus_index.store._CHUNK_BYTES", 32)
    build_index(np.arange(500) % 7, tmp_path / "index").close()
    entry = json.loads((tmp_path / "index" / "manifest.json").read_text())["arrays"]["order"]
    assert len(entry["crc32"]) == 8 * -(-entry["bytes"] // 64)
    CorpusIndex.open(tmp_path / "index", check="always").close()
    for place in (0, 63, 64, entry["bytes"] - 1):
        flip(tmp_path / "index" / "order.bin", place)
        with pytest.raises(IndexFormatError, match=r"order\.bin was changed"):
            CorpusIndex.open(tmp_path / "index", check="always")
        flip(tmp_path / "index" / "order.bin", place)


def test_a_damaged_index_leaves_no_stamp_and_a_mended_one_opens(path: Path) -> None:
    for stamp in stamps(path):
        stamp.unlink()
    forget()
    flip(path / "tokens.bin")
    for _ in range(2):
        with pytest.raises(IndexFormatError, match=r"tokens\.bin was changed"):
            CorpusIndex.open(path)
    assert stamps(path) == []
    flip(path / "tokens.bin")
    CorpusIndex.open(path).close()


def test_a_checksum_of_another_length_is_refused(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["arrays"]["order"]["crc32"] = "00"
    manifest["fingerprint"] = seal(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFormatError, match=r"'arrays\.order\.crc32': '00' is not the CRC-32 of 1 blocks in hex"):
        CorpusIndex.open(path)


def test_without_a_folder_for_stamps_each_process_checks(
    path: Path, monkeypatch: pytest.MonkeyPatch, comparisons: list[Path]
) -> None:
    (path.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent / "file"))
    for _ in range(2):
        forget()
        CorpusIndex.open(path).close()
        CorpusIndex.open(path).close()
    assert comparisons == [path, path]


def test_a_worker_does_not_check_again(path: Path, monkeypatch: pytest.MonkeyPatch, comparisons: list[Path]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    forget()
    content = pickle.dumps(CorpusIndex.open(path))
    unchecked = pickle.dumps(CorpusIndex.open(path, check="never"))
    forget()
    assert comparisons == [path]
    for pickled in (content, unchecked):
        with pickle.loads(pickled) as index:
            assert index.count([1]) > 0
    assert comparisons == [path]


def test_of_several_at_once_one_checks(path: Path, comparisons: list[Path]) -> None:
    for stamp in stamps(path):
        stamp.unlink()
    forget()
    threads = [threading.Thread(target=lambda: CorpusIndex.open(path).close()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert comparisons == [path]
    assert len(stamps(path)) == 1


def test_stamps_do_not_pile_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity_module, "_MOST_STAMPS", 3)
    for _ in range(6):
        (path / "note.txt").touch()  # another time of change: other files, for all that is known
        CorpusIndex.open(path).close()
    assert len(stamps(path)) == 3


def test_small_indexes_are_checked_every_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, comparisons: list[Path]
) -> None:
    monkeypatch.setattr(integrity_module, "_SMALL_BYTES", 1 << 20)
    for _ in range(2):
        CorpusIndex.open(path).close()
    assert comparisons == [path, path]


def test_the_environment_says_what_is_done_in_place_of_first(
    path: Path, monkeypatch: pytest.MonkeyPatch, comparisons: list[Path]
) -> None:
    CorpusIndex.open(path).close()
    comparisons.clear()
    for word, count in (("always", 2), ("never", 2), ("first", 2), ("", 2)):  # its stamp is there
        monkeypatch.setenv("CORPUS_TEACHER_CHECK", word)
        forget()
        for _ in range(2):
            CorpusIndex.open(path).close()
        assert len(comparisons) == count
    flip(path / "near.bin")
    monkeypatch.setenv("CORPUS_TEACHER_CHECK", "never")
    CorpusIndex.open(path).close()
    with pytest.raises(IndexFormatError, match=r"near\.bin was changed"):
        CorpusIndex.open(path, check="always")
    monkeypatch.setenv("CORPUS_TEACHER_CHECK", "often")
    with pytest.raises(QueryError, match="CORPUS_TEACHER_CHECK is 'often': give 'always', 'first'"):
        CorpusIndex.open(path)
