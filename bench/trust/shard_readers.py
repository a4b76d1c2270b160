"""Readers of samples and of rows of token ids, ready to be fuzzed: others' shards, tables, saved data sets."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.trust.inputs import Input
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.tokenizers import ByteTokenizer
from corpus_teacher.data.tokens import read_tokens
from corpus_teacher.errors import InputError

_IDS = [np.array([1, 2, 3], "<u2"), np.array([7, 8], "<u2")]


def _read_all(path: Path) -> None:
    """Text or tokens, whatever it is, to the end, in each of the ways to treat what is broken."""
    refused: InputError | None = None
    for options in (ReadOptions("skip"), ReadOptions("fail"), ReadOptions("replace")):
        try:
            read_tokens(
                [str(path)],
                ByteTokenizer(),
                vocab_size=300,
                end_of_document=256,
                read=options,
                without_tokenizer="none",
            )
        except InputError as error:
            refused = error
    if refused is not None:
        raise refused


def _samples(samples: Sequence[bytes], head: bytes = b"") -> bytes:
    """The layout of a shard: number, offsets, head, samples."""
    before = 4 + 4 * (len(samples) + 1) + len(head)
    offsets = np.cumsum([before, *map(len, samples)]).astype("<u4")
    return struct.pack("<I", len(samples)) + offsets.tobytes() + head + b"".join(samples)


def _mds() -> bytes:
    said = {"column_names": ["id", "text", "more"], "column_encodings": ["int64", "str", "json"], "version": 2}
    said |= {"column_sizes": [8, None, None], "format": "mds"}
    rows = []
    for number, text in enumerate((b"a cat", "sat é".encode())):
        more = b'{"a": [1, null]}'
        rows.append(struct.pack("<2Iq", len(text), len(more), number) + text + more)
    return _samples(rows, json.dumps(said).encode())


def _mds_tokens() -> bytes:
    said = {"column_names": ["tokens"], "column_encodings": ["ndarray:uint16"], "column_sizes": [None], "version": 2}
    rows = []
    for ids in _IDS:
        data = bytes([1 << 2, len(ids)]) + ids.tobytes()  # one axis, whose length takes a byte
        rows.append(struct.pack("<I", len(data)) + data)
    return _samples(rows, json.dumps(said).encode())


def _tar(*, tokens: bool) -> bytes:
    file, array = io.BytesIO(), io.BytesIO()
    np.save(array, _IDS[0])
    texts = {"a/1.txt": b"a cat", "a/1.json": b'{"id": 1}', "a/2.txt": "sat é".encode()}
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content in ({"3.input_ids.npy": array.getvalue()} if tokens else texts).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _parquet_rows() -> list[bytes]:
    found = []
    for kind in (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.binary()):
        values = [ids.tobytes() if kind == pa.binary() else ids.tolist() for ids in _IDS]
        file = io.BytesIO()
        pq.write_table(pa.table({"input_ids": pa.array(values, kind), "id": [1, 2]}), file)
        found.append(file.getvalue())
    return found


def _file(name: str, samples: list[bytes], structure: str | None = None) -> Callable[[Path], Input]:
    def prepare(folder: Path) -> Input:
        path = folder / name

        def read(content: bytes) -> None:
            path.write_bytes(content)
            _read_all(path)

        return Input(samples, read, structure=structure)

    return prepare


def _mds_index(folder: Path) -> Input:
    place = folder / "mds"
    place.mkdir()
    (place / "shard.00000.mds").write_bytes(_mds())
    entry = {"raw_data": {"basename": "shard.00000.mds", "bytes": 1}, "zip_data": None, "samples": 2, "version": 2}
    sample = json.dumps({"shards": [entry], "version": 2}).encode()

    def read(content: bytes) -> None:
        (place / "index.json").write_bytes(content)
        _read_all(place)

    return Input([sample], read, structure="json")


def _litdata(file: str) -> Callable[[Path], Input]:
    """A chunk of texts and ids, or the index.json beside it."""

    def prepare(folder: Path) -> Input:
        place = folder / "litdata"
        place.mkdir()
        leaves = [[b"a cat", _IDS[0].astype("<i8").tobytes()], ["é".encode(), b""]]
        chunk = _samples([struct.pack("<2I", *map(len, pair)) + b"".join(pair) for pair in leaves])
        leaf = {"type": None, "context": None, "children_spec": []}
        spec = {"type": "builtins.dict", "context": json.dumps(["text", "id"]), "children_spec": [leaf, leaf]}
        config = {"compression": None, "data_format": ["str", "no_header_tensor:17"], "encryption": None,
                  "data_spec": json.dumps([1, spec]), "item_loader": "PyTreeLoader"}  # fmt: skip
        entries = [{"chunk_bytes": len(chunk), "chunk_size": 2, "dim": None, "filename": "chunk-0-0.bin"}]
        index = json.dumps({"chunks": entries, "config": config}).encode()
        contents = {"chunk-0-0.bin": chunk, "index.json": index}
        for name, content in contents.items():
            (place / name).write_bytes(content)

        def read(content: bytes) -> None:
            (place / file).write_bytes(content)
            _read_all(place)

        return Input([contents[file]], read, structure="json" if file == "index.json" else None)

    return prepare


def _datatrove(file: str) -> Callable[[Path], Input]:
    """A .ds of uint16, its index or its metadata."""

    def prepare(folder: Path) -> Input:
        ids, ends = (np.arange(40, dtype="<u2") % 9).tobytes(), np.array([10, 25, 40], "<u8").tobytes()
        contents = {"a.ds": ids, "a.ds.index": ends, "a.ds.metadata": b"tokenizer|2\n40\n40 T"}
        for name, content in contents.items():
            (folder / name).write_bytes(content)

        def read(content: bytes) -> None:
            (folder / file).write_bytes(content)
            _read_all(folder / "a.ds")

        return Input([contents[file]], read)

    return prepare


def _saved_dataset(file: str) -> Callable[[Path], Input]:
    """A folder of the `datasets` library: its Arrow file, or what is said beside it."""

    def prepare(folder: Path) -> Input:
        import datasets

        datasets.disable_progress_bars()
        place = folder / "saved"
        datasets.Dataset.from_dict({"text": ["a cat", "sat"], "id": [1, 2]}).save_to_disk(str(place))
        path = next(place.glob(file))

        def read(content: bytes) -> None:
            path.write_bytes(content)
            _read_all(place)

        return Input([path.read_bytes()], read, structure="json" if path.suffix == ".json" else None)

    return prepare


SHARDS: dict[str, Callable[[Path], Input]] = {
    "mds": _file("a.mds", [_mds(), _mds_tokens()]),
    "mds-index": _mds_index,
    "litdata": _litdata("chunk-0-0.bin"),
    "litdata-index": _litdata("index.json"),
    "webdataset": _file("a.tar", [_tar(tokens=False), _tar(tokens=True)]),
    "datatrove": _datatrove("a.ds"),
    "datatrove-index": _datatrove("a.ds.index"),
    "datatrove-metadata": _datatrove("a.ds.metadata"),
    "rows-parquet": _file("a.parquet", _parquet_rows()),
    "rows-json-lines": _file("a.jsonl", [b'{"input_ids": [1, 2], "id": 3}\n{"input_ids": []}\n'], "lines"),
    "saved-dataset": _saved_dataset("*.arrow"),
    "saved-dataset-state": _saved_dataset("state.json"),
    "saved-dataset-info": _saved_dataset("dataset_info.json"),
}
"""By name: what makes the input of a reader."""
