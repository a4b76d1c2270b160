"""Shards of samples (MDS, litdata, WebDataset): read as their packages write them; one sentence for what is damaged."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.litdata import read_litdata
from corpus_teacher.data.mds import read_mds
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.shards import shard_folder
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.webdataset import read_webdataset
from corpus_teacher.errors import InputError
from tests.teacher.data.shard_writers import mds_shard, npy, packed_samples, write_litdata, write_mds, write_tar

TEXTS = ["text é", "", "more text"]


def records(read: Any, path: Path, fields: Any = None) -> list[dict[str, Any]]:
    return [record for _, record in read(path, fields, ReadLog())]


def texts(*specs: Path, **options: Any) -> list[tuple[str, str]]:
    read = find_sources([str(one) for one in specs]).documents(ReadOptions(**options), ReadLog())
    return [(document.name or document.origin, document.text) for document in read]


# MDS


@pytest.mark.parametrize("packed", [False, True])
def test_mds_of_text(tmp_path: Path, packed: bool) -> None:
    columns: dict[str, tuple[str, int | None]] = {"text": ("str", None), "id": ("int", 8), "meta": ("json", None)}
    rows = [
        {"text": text.encode(), "id": struct.pack("<q", number), "meta": b'{"a": 1}'}
        for number, text in enumerate(TEXTS)
    ]
    write_mds(tmp_path / "mds", columns, [rows[:2], rows[2:]], packed=packed)
    found = texts(tmp_path / "mds")
    assert [text for _, text in found] == TEXTS
    suffix = ".zstd" if packed else ""
    assert found[1][0] == f"{tmp_path}/mds/shard.00000.mds{suffix}, sample 2"
    assert [name for name, _ in texts(tmp_path / "mds", name_field="id")] == ["0", "1", "2"]
    (record, *_) = records(read_mds, tmp_path / "mds" / f"shard.00000.mds{suffix}")
    assert record == {"text": "text é".encode(), "id": 0, "meta": {"a": 1}}


def test_columns_of_mds(tmp_path: Path) -> None:
    ids = np.array([5, 6, 7])
    columns: dict[str, tuple[str, int | None]] = {
        "any": ("ndarray", None), "typed": ("ndarray:int32", None), "shaped": ("ndarray:uint16:3", 6),
        "small": ("uint8", 1), "real": ("float32", 4), "written": ("str_int", None), "picture": ("pkl", None),
    }  # fmt: skip
    row = {
        "any": bytes([16, 1 << 2 | 0, 3]) + ids.astype("<u2").tobytes(),
        "typed": bytes([1 << 2 | 1, 3, 0]) + ids.astype("<i4").tobytes(),
        "shaped": ids.astype("<u2").tobytes(),
        "small": b"\x07", "real": struct.pack("<f", 0.5), "written": b"12", "picture": b"\x80\x04.",
    }  # fmt: skip
    path = tmp_path / "a.mds"
    path.write_bytes(mds_shard(columns, [row]))
    (record,) = records(read_mds, path)
    for name in ("any", "typed", "shaped"):
        assert record[name].tolist() == [5, 6, 7]
    assert (record["small"], record["real"], record["written"], record["picture"]) == (7, 0.5, "12", None)
    with pytest.raises(InputError, match=r"a\.mds, sample 1: the column 'picture' is encoded as 'pkl', which isn't"):
        records(read_mds, path, ["picture"])


def test_damaged_mds(tmp_path: Path) -> None:
    path = tmp_path / "a.mds"
    columns: dict[str, tuple[str, int | None]] = {"tokens": ("ndarray:uint16", None)}
    whole = mds_shard(columns, [{"tokens": bytes([1 << 2, 2]) + b"\1\0\2\0"}])
    cases = [
        (whole[:-1], "is cut short: sample 1 is not all there"),
        (b"\xff\xff\xff\xff" + whole[4:], "tells of 4,294,967,295 samples"),
        (whole[:8] + struct.pack("<I", 5) + whole[12:], "sample 1 is damaged: its offset"),
        (packed_samples([b"x"], b"[1]"), "its description of columns can't be read"),
        (packed_samples([b"x"], b'{"column_names": 3, "column_encodings": 1, "column_sizes": 0}'), "doesn't fit"),
        (packed_samples([b"x"], json.dumps({"column_names": ["a"], "column_encodings": ["str"], "column_sizes": [-1]})
                        .encode()), "doesn't fit together"),
        (mds_shard(columns, [{"tokens": bytes([1 << 2, 3]) + b"\1\0\2\0"}]), "has 2 numbers, and should have 3"),
        (mds_shard(columns, [{"tokens": bytes([1 << 2, 2]) + b"\1\0\2"}]), "no whole number of uint16"),
        (b"", "its number of samples is not all there"),
    ]  # fmt: skip
    for content, sentence in cases:
        path.write_bytes(content)
        with pytest.raises(InputError, match=sentence) as raised:
            records(read_mds, path)
        assert "a.mds" in str(raised.value)


@pytest.mark.parametrize("name", ["../outside.mds", "/etc/passwd", "a\\..\\b", "", None, 3, "missing.mds"])
@pytest.mark.parametrize("kind", ["mds", "litdata"])
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, kind: str, name: Any) -> None:
    (tmp_path / "outside.mds").write_bytes(b"x")
    folder = tmp_path / "data"
    folder.mkdir()
    content: dict[str, Any] = {"shards": [{"raw_data": {"basename": name}, "zip_data": None}]}
    if kind == "litdata":
        content = {"chunks": [{"filename": name}], "config": {}}
    (folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"index\.json lists .*(no file inside of its folder|isn't there)"):
        find_sources([str(folder)])


def test_an_index_of_something_else_is_no_folder_of_shards(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    for content in ("[1]", "{", '{"shards": 3}', '{"chunks": [], "config": 1}', "[" * 100_000):
        (tmp_path / "index.json").write_text(content)
        assert shard_folder(tmp_path) is None
        assert [text for _, text in texts(tmp_path)] == ["text"]


def test_a_packing_that_is_not_read(tmp_path: Path) -> None:
    write_mds(tmp_path, {"text": ("str", None)}, [[{"text": b"x"}]])
    (tmp_path / "shard.00000.mds").rename(tmp_path / "shard.00000.mds.br")
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace('"zip_data": null', '"zip_data": {"basename": "shard.00000.mds.br"}'))
    with pytest.raises(InputError, match=r"shard\.00000\.mds\.br is packed in a way that can't be read"):
        find_sources([str(tmp_path)])


# litdata


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_litdata(tmp_path: Path, compression: str | None) -> None:
    samples = [[text.encode(), struct.pack("<q", number)] for number, text in enumerate(TEXTS)]
    folder = tmp_path / "lit"
    write_litdata(folder, ["str", "int"], [samples[:2], samples[2:]], keys=["text", "id"], compression=compression)
    assert [text for _, text in texts(folder)] == TEXTS
    chunk = find_sources([str(folder)]).sources[0].name
    assert texts(Path(chunk)) == [(f"{chunk}, sample 1", TEXTS[0]), (f"{chunk}, sample 2", TEXTS[1])]
    assert [name for name, _ in texts(folder, name_field="id")] == ["0", "1", "2"]


def test_leaves_of_litdata(tmp_path: Path) -> None:
    ids = np.array([5, 6, 7])
    leaves = [
        ids.astype("<i4").tobytes(),
        ids.astype("<u2").tobytes(),
        struct.pack(">3I", 17, 1, 3) + ids.astype("<i8").tobytes(),
        struct.pack("<3I", 6, 1, 3) + ids.astype("<u4").tobytes(),
        b"\x01", struct.pack("<d", 0.5), b"\x80\x04.",
    ]  # fmt: skip
    formats = ["no_header_tensor:16", "no_header_numpy:5", "tensor", "numpy", "bool", "float", "pickle"]
    write_litdata(tmp_path, formats, [[leaves]], keys="abcdefg")
    path = tmp_path / "chunk-0-0.bin"
    (record,) = records(read_litdata, path)
    for name in "abcd":
        assert record[name].tolist() == [5, 6, 7]
    assert (record["e"], record["f"], record["g"]) == (True, 0.5, None)
    with pytest.raises(InputError, match="leaf 'g' is of the format 'pickle', which isn't read"):
        records(read_litdata, path, ["g"])
    write_litdata(tmp_path, ["no_header_tensor:16"], [[[ids.astype("<i4").tobytes()]]], loader="TokensLoader")
    assert records(read_litdata, path)[0]["tokens"].tolist() == [5, 6, 7]


def test_damaged_litdata(tmp_path: Path) -> None:
    write_litdata(tmp_path, ["str"], [[[b"abc"]]])
    path, index = tmp_path / "chunk-0-0.bin", tmp_path / "index.json"
    whole, said = path.read_bytes(), index.read_text()
    cases = [
        (whole[:-1], said, "is cut short: sample 1"),
        (packed_samples([b"\x09\0\0\0abc"]), said, "its columns take 13 bytes, it has 7"),
        (packed_samples([b"\x09"]), said, "too few for 1 sizes"),
        (packed_samples([b""]), said, "no Arrow file follows"),
        (whole, said.replace('"encryption": null', '"encryption": {}').replace("{}", '{"a": 1}'), "are encrypted"),
        (whole, said.replace('"compression": null', '"compression": "lz4"'), "packed with 'lz4'"),
        (whole, said.replace('["str"]', "[]"), "doesn't say what a sample is made of"),
        (whole, said.replace('["str"]', '["str", "int"]'), "names 1 leaves, but has 2 formats"),
        (whole, said.replace('"data_spec": "[1,', '"data_spec": "[1'), "its data_spec can't be read"),
    ]
    for content, told, sentence in cases:
        path.write_bytes(content)
        index.write_text(told)
        with pytest.raises(InputError, match=sentence):
            records(read_litdata, path)


LITDATA = """
import sys, numpy as np, torch
from litdata.streaming.item_loader import TokensLoader
from litdata.streaming.writer import BinaryWriter
for name, items, more in (
    ("tokens", [torch.arange(n, dtype=torch.int32) for n in (5, 3, 8)],
     {"chunk_bytes": 40, "item_loader": TokensLoader()}),
    ("rows", [{"text": f"text {n}", "id": n, "ids": [1, n]} for n in range(5)], {"chunk_size": 3}),
    ("packed", [{"ids": np.arange(n + 1, dtype=np.uint16), "id": n} for n in range(5)],
     {"chunk_size": 3, "compression": "zstd", "compression_level": "chunk"}),
):
    writer = BinaryWriter(sys.argv[1] + "/" + name, **more)
    for number, item in enumerate(items):
        writer[number] = item
    writer.done()
    writer.merge(1)
"""


@pytest.mark.slow
def test_litdata_itself_writes_what_is_read(tmp_path: Path) -> None:
    pytest.importorskip("litdata", exc_type=ImportError)
    done = subprocess.run([sys.executable, "-c", LITDATA, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {
        name: [
            record
            for path in shards.paths
            for record in records(read_litdata, path)
        ]
        for name in ("tokens", "rows", "packed")
        if (shards := shard_folder(tmp_path / name)) is not None
    }  # fmt: skip
    assert [one["tokens"].tolist() for one in found["tokens"]] == [list(range(n)) for n in (5, 3, 8)]
    assert found["rows"] == [{"text": f"text {n}", "id": n, "ids": [1, n]} for n in range(5)]
    assert [one["ids"].tolist() for one in found["packed"]] == [list(range(n + 1)) for n in range(5)]


# WebDataset


def test_webdataset(tmp_path: Path) -> None:
    members = [
        ("__meta__.json", b"?"),
        ("a/1.txt", "text é".encode()), ("a/1.jpg", b"\xff\xd8"), ("a/1.json", b'{"url": "x", "lang": "en"}'),
        ("a/2.jpg", b""), ("a/2.txt", b"two"), ("a/2.json", b'{"url": "y", "lang": "de"}'),
    ]  # fmt: skip
    path = tmp_path / "s.tar"
    write_tar(path, members)
    assert texts(path) == [(f"{path}, sample 1", "text é"), (f"{path}, sample 2", "two")]
    assert texts(tmp_path, name_field="url") == [("x", "text é"), ("y", "two")]
    assert [name for name, _ in texts(path, name_field="__key__", text_field="txt")] == ["a/1", "a/2"]
    for suffix, packed in ((".gz", gzip.compress(path.read_bytes())), (".zst", zstandard.compress(path.read_bytes()))):
        (tmp_path / f"p.tar{suffix}").write_bytes(packed)
        assert [text for _, text in texts(tmp_path / f"p.tar{suffix}")] == ["text é", "two"]
    (tmp_path / "notes.txt").write_text("a folder with text")
    assert [text for _, text in texts(tmp_path)] == ["a folder with text"]


def test_tokens_of_webdataset(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, [("1.input_ids.npy", npy([5, 6])), ("2.json.gz", gzip.compress(b"[7, 8, 9]")), ("3.npy", npy([1]))])
    first, second, third = records(read_webdataset, path)
    assert first["input_ids"].tolist() == [5, 6]
    assert second["json"] == [7, 8, 9]
    assert third["npy"].tolist() == [1]


def test_damaged_webdataset(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    header = npy(np.zeros(3, np.uint16))
    cases = [
        ([("1.json", b"{")], r"s\.tar, sample 1 \(1\.json\) is not JSON"),
        ([("1.npy", header[:-1])], "is cut short: its array takes 6 bytes, 5 are there"),
        ([("1.npy", header.replace(b"(3,)", b"(9999999999999,)"))], "is cut short|not a .npy"),
        ([("1.npy", b"\x93NUMPY\x01\x00\x05\x00{....")], "is not a .npy array"),
        ([("1.npy", npy(np.array([1, 2])).replace(b"<i8", b"|O8"))], "is not a .npy array of plain numbers"),
        ([("1.json.gz", b"\x1f\x8b\x08\x00")], "can't be unpacked"),
    ]
    for members, sentence in cases:
        write_tar(path, members)
        with pytest.raises(InputError, match=sentence):
            records(read_webdataset, path)
    write_tar(path, [("1.txt", b"x" * 5000)])
    for content, sentence in ((path.read_bytes()[:3000], "cut short|tar archive"), (b"x" * 600, "as a tar archive")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            records(read_webdataset, path)


def test_webdataset_itself_writes_what_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", exc_type=ImportError)
    with webdataset.TarWriter(str(tmp_path / "s.tar")) as writer:
        for number in range(3):
            writer.write({"__key__": f"k{number}", "txt": f"text {number}", "ids.npy": np.arange(number + 1)})
    found = records(read_webdataset, tmp_path / "s.tar")
    assert [(one["__key__"], one["text"], one["ids"].tolist()) for one in found] == [
        (f"k{number}", f"text {number}".encode(), list(range(number + 1))) for number in range(3)
    ]


# anything else


@given(data=st.data())
def test_a_damaged_byte_ends_in_a_sentence_or_in_records(data: st.DataObject, tmp_path_factory: Any) -> None:
    kind = data.draw(st.sampled_from(["mds", "litdata", "tar"]))
    folder = tmp_path_factory.mktemp("damaged")
    if kind == "mds":
        write_mds(folder, {"t": ("ndarray", None), "u": ("str", None)}, [[{"t": b"\x10\x04\x01\5\0", "u": b"u"}] * 2])
    elif kind == "litdata":
        write_litdata(folder, ["numpy", "str"], [[[struct.pack("<3I", 5, 1, 1) + b"\5\0", b"u"]] * 2], keys="tu")
    else:
        write_tar(folder / "a.tar", [("1.npy", npy([5])), ("1.txt", b"u"), ("2.json", b'{"t": [5]}')])
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    read = {"mds": read_mds, "litdata": read_litdata, "tar": read_webdataset}[kind]
    (shard,) = [one for one in folder.iterdir() if one.name != "index.json"]
    said = str(folder)
    try:
        find_sources([str(folder)])
        records(read, shard)
    except InputError as error:
        said = str(error)
    assert str(folder) in said
