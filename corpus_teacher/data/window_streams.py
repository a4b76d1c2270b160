"""Windows that carry their place through the loaders of others: `datasets` streams and MosaicML's MDS.

A corpus teacher leaves a window's document out by the window's position in the corpus. Loaders that shuffle keep
columns, so a window that has its position as a column keeps it, in whatever order it comes. Naively:
`[windows[i] for i in range(len(windows))]`, shuffled by somebody else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index.files import whole_file

from corpus_teacher.data.windows import TokenWindows
from corpus_teacher.errors import ConfigError, OutputError
from corpus_teacher.storage import written_path

_SHARD_BYTES = 1 << 26
_COLUMNS = {"input_ids": "ndarray:int32", "position": "int", "starts_document": "uint8"}
_SIZES = {"position": 8, "starts_document": 1}


def stream_windows(windows: TokenWindows, num_shards: int = 8) -> Any:
    """Windows as a `datasets.IterableDataset`: to be shuffled, split among workers and nodes, and resumed by it.

    Parameters
    ----------
    windows : TokenWindows
        Every worker maps the tokens' file itself. Its own shuffle, if it has one, comes first.
    num_shards : int
        Parts of the stream, in which it is shuffled and given to workers; at most the number of windows.

    Returns
    -------
    datasets.IterableDataset
        Rows of "input_ids" (T,), "position" and "starts_document", which `TeacherCollator` reads.

    Raises
    ------
    ConfigError
        If there is no shard.

    Examples
    --------
    >>> stream = stream_windows(TokenWindows(np.arange(12), 3, shuffle=False), 2).shuffle(seed=0, buffer_size=4)
    >>> all(row["input_ids"][0] == row["position"] for row in stream)
    True
    """
    import datasets

    if num_shards < 1:
        raise ConfigError(f"num_shards is {num_shards}: give at least 1")
    bounds = np.linspace(0, len(windows), min(num_shards, len(windows)) + 1).astype(int).tolist()
    features = datasets.Features(
        {
            "input_ids": datasets.Sequence(datasets.Value("int64")),
            "position": datasets.Value("int64"),
            "starts_document": datasets.Value("bool"),
        }
    )
    ranges = list(pairwise(bounds))
    given = {"windows": windows, "ranges": ranges}
    return datasets.IterableDataset.from_generator(_rows, features=features, gen_kwargs=given)


def _rows(windows: TokenWindows, ranges: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    for begin, end in ranges:
        for number in range(begin, end):
            yield windows[number]


def write_window_shards(windows: TokenWindows, folder: str | Path, *, shard_bytes: int = _SHARD_BYTES) -> Path:
    """Windows as a folder of MDS, for MosaicML's `StreamingDataset`; their places are columns.

    Parameters
    ----------
    windows : TokenWindows
    folder : str or Path
        Made if need be; it must be empty.
    shard_bytes : int
        Of a shard, about.

    Returns
    -------
    Path
        The folder. Samples have "input_ids" (int32), "position" and "starts_document", as `TeacherCollator` reads them.

    Raises
    ------
    OutputError
        If the folder holds something, or can't be written.

    Notes
    -----
    Memory holds one shard. The index.json comes last, so that a folder without one isn't whole.
    """
    folder = written_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder} isn't empty: name a new folder for the shards")
        per_shard = max(1, shard_bytes // (4 * windows.length + 32))
        entries = []
        for number, begin in enumerate(range(0, len(windows), per_shard)):
            samples = [_sample(windows[one]) for one in range(begin, min(begin + per_shard, len(windows)))]
            content = _shard(samples)
            name = f"shard.{number:05d}.mds"
            with whole_file(folder / name) as file:
                file.write(content)
            raw = {"basename": name, "bytes": len(content), "hashes": {}}
            entries.append({**_described(), "raw_data": raw, "samples": len(samples), "zip_data": None})
        with whole_file(folder / "index.json") as file:
            file.write(json.dumps({"shards": entries, "version": 2}, sort_keys=True).encode())
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"the shards can't be written to {folder} ({error.strerror or error})") from error
    return folder


def _described() -> dict[str, Any]:
    """What each shard, and the index about it, says of its columns."""
    names = sorted(_COLUMNS)
    return {
        "column_encodings": [_COLUMNS[name] for name in names],
        "column_names": names,
        "column_sizes": [_SIZES.get(name) for name in names],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": _SHARD_BYTES,
        "version": 2,
    }


def _sample(window: dict[str, Any]) -> bytes:
    """A window: the size of its array, then its columns by name; an array says its one axis' length in 32 bits."""
    ids = np.asarray(window["input_ids"]).astype("<i4")
    array = struct.pack("<BI", 1 << 2 | 2, len(ids)) + ids.tobytes()
    return (
        struct.pack("<I", len(array))
        + array
        + struct.pack("<qB", int(window["position"]), int(window["starts_document"]))
    )


def _shard(samples: list[bytes]) -> bytes:
    """The number of samples, their offsets, what they are made of, the samples."""
    head = json.dumps(_described(), sort_keys=True).encode()
    begin = 4 + 4 * (len(samples) + 1) + len(head)
    offsets = np.cumsum([begin, *map(len, samples)]).astype("<u4")
    return struct.pack("<I", len(samples)) + offsets.tobytes() + head + b"".join(samples)
