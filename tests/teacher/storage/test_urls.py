"""Files behind URLs: read in ranges, tried again where a connection breaks, one sentence for everything else."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import corpus_index
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_index import DocumentNames

from corpus_teacher.data.build import BuildOptions, build_index_from_sources
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.token_streams import join_ready_tokens
from corpus_teacher.data.tokens import are_ready, open_ready_sources
from corpus_teacher.errors import InputError, OutputError
from corpus_teacher.storage import UrlPath, place_of, url_of, urls
from tests.teacher.data.shard_writers import write_mds, write_tar


def texts(*specs: str, **options: Any) -> list[tuple[str, str]]:
    read = find_sources(list(specs)).documents(ReadOptions(**options), ReadLog())
    return [(document.origin, document.text) for document in read]


def test_what_is_a_url() -> None:
    assert url_of(Path("s3://bucket/a b/c")) == "s3://bucket/a b/c"
    assert url_of("memory://a") == "memory://a"
    for path in ("a", "/a/b", "hf:name", "C:/a", "~/x", "file:///a", "s3:", "a//b"):
        assert url_of(path) is None
    assert place_of("file:///a/b") == Path("/a/b")
    assert place_of(Path("file:///a/b")) == Path("/a/b")
    assert place_of("a/b") == Path("a/b")


def test_a_url_path_is_named_as_a_path() -> None:
    path = UrlPath("s3://bucket/folder/a.jsonl.gz")
    assert (path.name, path.suffix, path.suffixes) == ("a.jsonl.gz", ".gz", [".jsonl", ".gz"])
    assert str(path.with_suffix(".idx")) == "s3://bucket/folder/a.jsonl.idx"
    assert path.parent / "b" == UrlPath("s3://bucket/folder/b")
    assert path.parent.joinpath("c", "d") == UrlPath("s3://bucket/folder/c/d")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All kinds of sources, small."""
    folder = tmp_path / "sources"
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text("text é")
    (folder / "below" / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "line"}\n{"text": "more"}\n'))
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "photo.jpg").write_bytes(b"\xff")
    pq.write_table(pa.table({"text": ["row", "another"]}), folder / "c.parquet")
    write_mds(folder / "mds", {"text": ("str", None)}, [[{"text": b"sample"}], [{"text": b"shard"}]])
    return folder


EXPECTED = ["text é", "row", "another", "line", "more", "sample", "shard"]


def check_folder(url: str) -> None:
    inventory = find_sources([url])
    assert inventory.skipped == {"hidden": 1, ".jpg": 1}
    assert inventory.size_bytes is not None
    found = texts(url)
    assert sorted(text for _, text in found) == sorted(EXPECTED)
    assert (f"{url}/below/b.jsonl.gz, line 2", "more") in found
    assert texts(f"{url}/*.txt") == [(f"{url}/a.txt", "text é")]
    assert texts(f"{url}/mds/shard.00001.mds") == [(f"{url}/mds/shard.00001.mds, sample 1", "shard")]


def test_a_folder_in_memory(memory: Any, folder: Path) -> None:
    memory.put(str(folder), "/corpus", recursive=True)
    check_folder("memory://corpus")


def test_a_folder_in_s3(s3: Any, folder: Path) -> None:
    s3.put(str(folder), "corpus/sources", recursive=True)
    check_folder("s3://corpus/sources")


def test_a_file_url_is_a_path(folder: Path) -> None:
    assert texts(f"file://{folder}/a.txt") == [(f"{folder}/a.txt", "text é")]


def test_ready_tokens(memory: Any, tmp_path: Path) -> None:
    tokens = np.arange(300, 400)
    memory.pipe("/t/raw.bin", tokens.astype("<u2").tobytes())
    memory.pipe("/t/wide.u32", tokens.astype("<u4").tobytes())
    memory.pipe("/t/a.ds", tokens.astype("<u2").tobytes())
    memory.pipe("/t/a.ds.index", struct.pack("<2Q", 40, 100))
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 2, 3) + np.array([60, 40], "<i4").tobytes()
    memory.pipe("/t/m.bin", tokens.astype("<u2").tobytes())
    memory.pipe("/t/m.idx", index + np.array([0, 120, 0, 1, 2], "<i8").tobytes())
    np.save(tmp_path / "a.npy", tokens.astype(np.int32))
    memory.put(str(tmp_path / "a.npy"), "/t/a.npy")
    write_tar(tmp_path / "s.tar", [("1.json", json.dumps(tokens.tolist()).encode())])
    memory.put(str(tmp_path / "s.tar"), "/t/s.tar")
    for name, ends in (
        ("raw.bin", [100]), ("wide.u32", [100]), ("a.ds", [40, 100]), ("m", [60, 100]), ("a.npy", [100]),
        ("s.tar", [100]),
    ):  # fmt: skip
        inventory = find_sources([f"memory://t/{name}"])
        assert are_ready(inventory)
        files = open_ready_sources(inventory, vocab_size=400)
        corpus, _ = join_ready_tokens(files, vocab_size=400, end_of_document=None, folder=tmp_path, notes=[])
        assert corpus.tokens.tolist() == tokens.tolist(), name
        assert corpus.doc_starts[1:].tolist() == ends
        assert corpus.names is not None
        assert DocumentNames(corpus.names)[0].name.startswith("memory://t/")


def test_text_is_built_and_named(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/t/a.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    summary = build_index_from_sources(["memory://t"], tmp_path / "index", BuildOptions(tokenizer="bytes"))
    assert summary.num_documents == 2
    with corpus_index.open_index(tmp_path / "index") as index:
        assert index.document(1).name == "memory://t/a.jsonl, line 2"


def test_a_large_file_is_read_in_ranges(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_FIRST_BYTES", 1 << 10)
    monkeypatch.setattr(urls, "_MOST_BYTES", 1 << 12)
    content = np.random.default_rng(0).bytes(500_000)
    memory.pipe("/t/a", content)
    asked: list[int] = []
    read_range = UrlPath.read_range

    def counted(path: UrlPath, begin: int, end: int) -> bytes:
        asked.append(end - begin)
        return read_range(path, begin, end)

    monkeypatch.setattr(UrlPath, "read_range", counted)
    with UrlPath("memory://t/a").open() as file:
        assert file.read(10) == content[:10]
        file.seek(-20, 2)
        assert file.read() == content[-20:]
        file.seek(100)
        assert b"".join(iter(lambda: file.read(4096), b"")) == content[100:]
    assert max(asked) <= 1 << 16
    assert len(asked) > 7


def test_a_broken_connection_is_tried_again(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/t/a.txt", b"whole text " * 1000)
    cat_file, times = type(memory).cat_file, {"broken": 0}

    def breaking(self: Any, path: str, start: Any = None, end: Any = None, **more: Any) -> bytes:
        times["broken"] += 1
        if times["broken"] % 3 == 1:
            raise ConnectionResetError("connection reset by peer")
        data = cat_file(self, path, start=start, end=end, **more)
        return data[:-1] if times["broken"] % 3 == 2 else data  # cut short: to be tried again too

    monkeypatch.setattr(type(memory), "cat_file", breaking)
    assert texts("memory://t/a.txt") == [("memory://t/a.txt", "whole text " * 1000)]
    assert times["broken"] >= 3

    def broken(self: Any, path: str, **more: Any) -> bytes:
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(type(memory), "cat_file", broken)
    with pytest.raises(InputError, match=r"a\.txt can't be read after 4 tries: ConnectionResetError: connection reset"):
        texts("memory://t/a.txt")


def test_sentences(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"there is no file or folder memory://t/none\.txt"):
        find_sources(["memory://t/none.txt"])
    with pytest.raises(InputError, match=r"no file matches memory://t/\*\.txt"):
        find_sources(["memory://t/*.txt"])
    with pytest.raises(InputError, match=r"nothing://x: nothing:// is no storage that fsspec knows"):
        find_sources(["nothing://x"])
    with pytest.raises(OutputError, match=r"s3://bucket/index is a URL, and what is made is written to this machine"):
        build_index_from_sources(["memory://t"], Path("s3://bucket/index"), BuildOptions())

    def without_package(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", without_package)
    with pytest.raises(InputError, match=r"s3:// needs a package that isn't installed: pip install corpus-teacher\[re"):
        find_sources(["s3://bucket/a.txt"])
    with pytest.raises(InputError, match=r"gs:// needs a package that isn't installed: pip install gcsfs"):
        find_sources(["gs://bucket/a.txt"])


def test_sentences_of_s3(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"there is no file or folder s3://corpus/none\.txt"):
        find_sources(["s3://corpus/none.txt"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    type(s3).clear_instance_cache()
    with pytest.raises(InputError, match="there are no credentials for s3://: set them as its own client reads them"):
        find_sources(["s3://corpus/none.txt"])
