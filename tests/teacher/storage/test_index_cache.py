"""Indexes behind URLs: fetched once, shard by shard, checked, resumed where it broke off, and opened as any other."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import corpus_index
import numpy as np
import pytest
from corpus_index import integrity
from typer.testing import CliRunner

from corpus_teacher.cli.main import app
from corpus_teacher.errors import IndexFormatError, InputError, OutputError
from corpus_teacher.storage import UrlPath, fetching, local_index, open_index
from corpus_teacher.teacher import CorpusTeacher

TOKENS = np.random.default_rng(0).integers(1, 5, 400).astype(np.uint16)
STARTS = [0, 90, 170, 300, 400]


def build(path: Path, *, shards: bool, documents: int = 4) -> Path:
    end = STARTS[documents]
    corpus_index.build_index(
        TOKENS[:end], path, doc_starts=STARTS[: documents + 1], vocab_size=5, shard_tokens=130 if shards else None,
        attachments={"tokenizer.json": b"{}"}, progress=False,
    ).close()  # fmt: skip
    return path


@pytest.mark.parametrize("shards", [False, True])
def test_an_index_in_memory_is_the_index(memory: Any, tmp_path: Path, asked: list[str], shards: bool) -> None:
    path = build(tmp_path / "built", shards=shards)
    memory.put(str(path), "/bucket/index", recursive=True)
    with open_index("memory://bucket/index") as fetched, corpus_index.open_index(path) as built:
        assert fetched.fingerprint == built.fingerprint
        assert fetched.path.is_relative_to(tmp_path / "cache")
        assert isinstance(fetched, type(built))
        query = TOKENS[5:8]
        assert fetched.count(query) == built.count(query)
        np.testing.assert_array_equal(fetched.tokens[:], TOKENS)
    assert local_index("memory://bucket/index") == fetched.path
    assert len(asked) > 10
    asked.clear()
    with open_index(Path("memory://bucket/index")) as again:  # a Path makes one slash of two
        assert again.num_tokens == 400
    assert {name.rpartition("/")[2] for name in asked} == {"manifest.json"}


def test_a_teacher_and_commands_take_urls(memory: Any, tmp_path: Path) -> None:
    path = build(tmp_path / "built", shards=False)
    memory.put(str(path), "/bucket/index", recursive=True)
    teacher = CorpusTeacher("memory://bucket/index", leave_out=None)
    assert teacher.index.num_tokens == 400
    teacher.index.close()
    for command in (["info"], ["verify"]):
        result = CliRunner().invoke(app, ["index", *command, "memory://bucket/index"])
        assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["index", "merge", "memory://bucket/index"])
    assert result.exit_code == 2
    assert "memory://bucket/index is a URL, and what is made is written to this machine" in " ".join(
        result.output.split()
    )


def test_an_appended_index_needs_its_new_shards_alone(memory: Any, tmp_path: Path, asked: list[str]) -> None:
    path = build(tmp_path / "built", shards=True, documents=3)
    memory.put(str(path), "/bucket/index", recursive=True)
    local_index("memory://bucket/index")
    corpus_index.append_documents(path, TOKENS[300:], doc_starts=[0, 100], progress=False).close()
    memory.rm("/bucket/index", recursive=True)
    memory.put(str(path), "/bucket/index", recursive=True)
    asked.clear()
    with open_index("memory://bucket/index") as index:
        assert index.tokens[:].size == 400
        assert isinstance(index, corpus_index.ShardedIndex)
        newest = index.entries[-1].name
    fetched = {name.split("/")[-2] for name in asked if not name.endswith("manifest.json")}
    assert fetched == {newest}


def test_what_was_removed_is_fetched_as_a_mask(memory: Any, tmp_path: Path, asked: list[str]) -> None:
    path = build(tmp_path / "built", shards=False)
    memory.put(str(path), "/bucket/index", recursive=True)
    local_index("memory://bucket/index")
    corpus_index.remove_documents(path, [1]).close()
    memory.rm("/bucket/index", recursive=True)
    memory.put(str(path), "/bucket/index", recursive=True)
    asked.clear()
    with open_index("memory://bucket/index") as fetched, corpus_index.open_index(path) as built:
        np.testing.assert_array_equal(np.asarray(fetched.tokens), np.asarray(built.tokens))
        assert fetched.num_documents == built.num_documents
    assert not any(name.endswith("order.bin") for name in asked)  # the shards are there
    [mask] = path.glob("mask-*.bin")
    memory.pipe(f"/bucket/index/{mask.name}", mask.read_bytes()[::-1])
    for folder in (tmp_path / "cache" / "indexes").iterdir():
        if folder.name == mask.name:
            folder.unlink()
        elif (folder / mask.name).exists():
            shutil.rmtree(folder)
    with open_index("memory://bucket/index") as fetched, pytest.raises(IndexFormatError, match="have the checksum"):
        fetched.count([1])


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"x" * 300])
@pytest.mark.parametrize("of_shard", [False, True])
def test_a_damaged_manifest_is_named_by_its_url(memory: Any, tmp_path: Path, damaged: bytes, of_shard: bool) -> None:
    path = build(tmp_path / "built", shards=True)
    memory.put(str(path), "/bucket/index", recursive=True)
    place = "/bucket/index/manifest.json"
    if of_shard:
        place = next(f"/bucket/index/{each.name}/manifest.json" for each in path.iterdir() if each.is_dir())
    memory.pipe(place, damaged)
    with pytest.raises(IndexFormatError) as caught:
        open_index("memory://bucket/index")
    assert f"memory:/{place}" in str(caught.value) or f"memory:/{place.rpartition('/')[0]}" in str(caught.value)
    assert "cache" not in str(caught.value)
    assert "build the index again" not in str(caught.value)


@pytest.mark.parametrize("shards", [False, True])
def test_what_broke_off_goes_on(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: bool) -> None:
    monkeypatch.setattr(fetching, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(fetching, "_THREADS", 1)
    path = build(tmp_path / "built", shards=shards)
    memory.put(str(path), "/bucket/index", recursive=True)
    read_range, left = UrlPath.read_range, [25]
    blocks: list[tuple[str, int]] = []

    def breaking(place: UrlPath, begin: int, end: int) -> bytes:
        if not place.name.endswith(".json"):
            if left[0] == 0:
                raise InputError(f"{place} can't be read after 4 tries")
            left[0] -= 1
            blocks.append((str(place), begin))
        return read_range(place, begin, end)

    monkeypatch.setattr(UrlPath, "read_range", breaking)
    for _ in range(60):
        try:
            with open_index(local_index("memory://bucket/index")) as index:
                assert index.num_tokens == 400
            break
        except InputError:
            left[0] = 25
    else:
        pytest.fail("it never ended")
    assert len(blocks) > 50  # it broke off at least twice
    assert len(set(blocks)) == len(blocks)  # and nothing was read twice


def test_damage_is_found_and_fetched_again(memory: Any, tmp_path: Path) -> None:
    path = build(tmp_path / "built", shards=False)
    memory.put(str(path), "/bucket/index", recursive=True)
    whole = memory.cat_file("/bucket/index/order.bin")
    memory.pipe("/bucket/index/order.bin", b"\xff" + whole[1:])
    with pytest.raises(IndexFormatError, match=r"memory://bucket/index/order\.bin doesn't have the checksum"):
        local_index("memory://bucket/index")
    memory.pipe("/bucket/index/order.bin", whole[:-1])
    with pytest.raises(IndexFormatError, match=r"order\.bin has 1,599 bytes, its manifest tells of 1,600|has .* bytes"):
        local_index("memory://bucket/index")
    memory.pipe("/bucket/index/order.bin", whole)
    with open_index("memory://bucket/index") as index:
        assert index.count(TOKENS[:1]) > 0


@pytest.mark.parametrize("shards", [False, True])
def test_what_was_compared_when_it_came_is_not_compared_again(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "stamps"))
    monkeypatch.setattr(integrity, "_SMALL_BYTES", 0)
    compared: list[Path] = []
    monkeypatch.setattr(integrity, "compare", lambda path, *rest: compared.append(path))
    memory.put(str(build(tmp_path / "built", shards=shards)), "/bucket/index", recursive=True)
    folder = local_index("memory://bucket/index")
    with open_index(folder) as index:
        assert index.is_checked
        assert compared == []
        place = index.shards[0].path if isinstance(index, corpus_index.ShardedIndex) else index.path
    (place / "order.bin").write_bytes((place / "order.bin").read_bytes())
    open_index("memory://bucket/index").close()
    assert compared == [place]


def test_an_interrupt_ends_all_that_was_begun(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.put(str(build(tmp_path / "built", shards=False)), "/bucket/index", recursive=True)
    monkeypatch.setattr(fetching, "_BLOCK_BYTES", 8)
    begun: list[str] = []
    read_range, interrupted = UrlPath.read_range, threading.Event()

    def interrupting(path: UrlPath, begin: int, end: int) -> bytes:
        begun.append(path.name)
        if path.name == "tokens.bin" and begin == 16:
            interrupted.set()
            raise KeyboardInterrupt
        if path.name == "order.bin":
            assert interrupted.wait(30)
        return read_range(path, begin, end)

    monkeypatch.setattr(UrlPath, "read_range", interrupting)
    with pytest.raises(KeyboardInterrupt):
        local_index("memory://bucket/index")
    assert begun.count("order.bin") <= 2  # of 200 blocks
    monkeypatch.setattr(UrlPath, "read_range", read_range)
    with open_index(local_index("memory://bucket/index")) as index:
        assert index.num_tokens == 400


def test_what_is_no_index(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/bucket/other/a.txt", b"x")
    for url in ("memory://bucket/other", "memory://nowhere/at/all"):
        with pytest.raises(IndexFormatError, match=rf"there is no index at {url}: it has no manifest\.json"):
            open_index(url)
    memory.pipe("/bucket/other/manifest.json", b"{")
    with pytest.raises(IndexFormatError, match=r"manifest\.json can't be read"):
        open_index("memory://bucket/other")
    path = build(tmp_path / "built", shards=True)
    memory.put(str(path), "/bucket/index", recursive=True)
    one, two, *_ = sorted(one.name for one in path.glob("shard-*"))
    memory.pipe(f"/bucket/index/{one}/manifest.json", (path / two / "manifest.json").read_bytes())
    with pytest.raises(IndexFormatError, match=rf"{one} is another shard than memory://bucket/index names"):
        open_index("memory://bucket/index")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CORPUS_TEACHER_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"can't be fetched into .*file.*: name another folder in CORPUS_TEACHER_CAC"):
        open_index("memory://bucket/index")


def test_a_relative_cache_does_not_follow_the_working_folder(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last files come in the background, when the caller may be elsewhere."""
    memory.put(str(build(tmp_path / "built", shards=False)), "/bucket/index", recursive=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORPUS_TEACHER_CACHE", "here")
    with open_index("memory://bucket/index") as index:
        assert index.path.is_relative_to(tmp_path / "here")
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert index.count(np.asarray(index.tokens[:1])) > 0
    assert not list((tmp_path / "elsewhere").iterdir())


def test_threads_that_ask_at_once_fetch_once(memory: Any, tmp_path: Path, asked: list[str]) -> None:
    path = build(tmp_path / "built", shards=False)
    memory.put(str(path), "/bucket/index", recursive=True)
    barrier = threading.Barrier(4)

    def fetch(_: int) -> Path:
        barrier.wait()
        return local_index("memory://bucket/index")

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(fetch, range(4)))) == 1
    files = [name for name in asked if not name.endswith("manifest.json")]
    assert len(files) == len(set(files)) > 5


def test_s3(s3: Any, tmp_path: Path) -> None:
    path = build(tmp_path / "built", shards=True)
    s3.put(str(path), "corpus/index", recursive=True)
    with open_index("s3://corpus/index") as fetched, corpus_index.open_index(path) as built:
        assert fetched.fingerprint == built.fingerprint
        assert fetched.count(TOKENS[5:8]) == built.count(TOKENS[5:8])


def test_a_folder_and_a_file_url_are_opened_where_they_are(tmp_path: Path) -> None:
    path = build(tmp_path / "built", shards=False)
    for name in (path, str(path), f"file://{path}"):
        assert local_index(name) == path
