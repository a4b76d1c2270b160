"""Shards as their packages write them, by the formats' descriptions: MosaicML's MDS, litdata's chunks, tar archives."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard


def packed_samples(samples: Sequence[bytes], head: bytes = b"") -> bytes:
    """The layout of a shard: number, offsets, head, samples."""
    before = 4 + 4 * (len(samples) + 1) + len(head)
    offsets = np.cumsum([before, *map(len, samples)]).astype("<u4")
    return struct.pack("<I", len(samples)) + offsets.tobytes() + head + b"".join(samples)


def mds_shard(columns: dict[str, tuple[str, int | None]], rows: Sequence[dict[str, bytes]]) -> bytes:
    """A shard of columns, encoding and fixed size by name, whose values are encoded already."""
    names = sorted(columns)
    said = {
        "column_names": names,
        "column_encodings": [columns[name][0] for name in names],
        "column_sizes": [columns[name][1] for name in names],
        "compression": None, "format": "mds", "hashes": [], "size_limit": 1 << 26, "version": 2,
    }  # fmt: skip
    samples = []
    for row in rows:
        free = [len(row[name]) for name in names if columns[name][1] is None]
        samples.append(struct.pack(f"<{len(free)}I", *free) + b"".join(row[name] for name in names))
    return packed_samples(samples, json.dumps(said, sort_keys=True).encode())


def write_mds(
    folder: Path, columns: dict[str, tuple[str, int | None]], shards: Sequence[Sequence[dict[str, bytes]]], *,
    packed: bool = False,
) -> None:  # fmt: skip
    """A folder with its index.json."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, rows in enumerate(shards):
        data, name = mds_shard(columns, rows), f"shard.{number:05d}.mds"
        stored = zstandard.compress(data) if packed else data
        zipped = {"basename": f"{name}.zstd", "bytes": len(stored), "hashes": {}} if packed else None
        (folder / (f"{name}.zstd" if packed else name)).write_bytes(stored)
        raw = {"basename": name, "bytes": len(data), "hashes": {}}
        entries.append({"format": "mds", "raw_data": raw, "zip_data": zipped, "samples": len(rows), "version": 2})
    (folder / "index.json").write_text(json.dumps({"shards": entries, "version": 2}))


def write_litdata(
    folder: Path, formats: Sequence[str], chunks: Sequence[Sequence[Sequence[bytes]]], *,
    keys: Sequence[str] | None = None, loader: str = "PyTreeLoader", compression: str | None = None,
) -> None:  # fmt: skip
    """A folder of chunks of samples of leaves, with its index.json."""
    folder.mkdir(parents=True, exist_ok=True)
    leaf = {"type": None, "context": None, "children_spec": []}
    spec: dict[str, Any] = leaf
    if keys is not None:
        spec = {"type": "builtins.dict", "context": json.dumps(list(keys)), "children_spec": [leaf] * len(keys)}
    config = {
        "compression": compression, "chunk_size": None, "chunk_bytes": 1 << 26, "data_format": list(formats),
        "data_spec": json.dumps([1, spec]), "encryption": None, "item_loader": loader,
    }  # fmt: skip
    entries = []
    for number, samples in enumerate(chunks):
        flat = loader == "TokensLoader"
        items = [
            (b"" if flat else struct.pack(f"<{len(leaves)}I", *map(len, leaves))) + b"".join(leaves)
            for leaves in samples
        ]
        data, name = packed_samples(items), f"chunk-0-{number}.bin"
        if compression:
            data, name = zstandard.compress(data), f"chunk-0-{number}.zstd.bin"
        (folder / name).write_bytes(data)
        entries.append({"chunk_bytes": len(data), "chunk_size": len(items), "dim": None, "filename": name})
    (folder / "index.json").write_text(json.dumps({"chunks": entries, "config": config, "updated_at": "0"}))


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """An archive of files."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def npy(array: Any) -> bytes:
    """An array as a .npy file has it."""
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()
