"""Writing a cache: ask a teacher about every window of a text once, and keep what it says.

Naively: for each window, ask and append. Here windows that the cache holds already are passed over, so a run that was
killed goes on where its last whole shard ends, the same text twice costs nothing, and more text can be added later.
A shard holds a fixed number of windows and batches don't cross it: killed or not, the files are the same.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.windows import TokenWindows
from corpus_teacher.errors import CacheError, ConfigError, OutputError
from corpus_teacher.files import LOCK_FILE, held_folder, write_bytes
from corpus_teacher.neural.cached import CachedTeacher
from corpus_teacher.neural.coding import RecordCodec
from corpus_teacher.neural.formats import TargetFormat
from corpus_teacher.neural.identity import window_keys
from corpus_teacher.neural.live import NeuralTeacher, kept_rows
from corpus_teacher.neural.shards import (
    MANIFEST,
    Shard,
    clear_strays,
    is_leftover,
    read_manifest,
    shard_name,
    write_manifest,
    write_shard,
)
from corpus_teacher.settings import CACHE_KINDS

HEAD = "head.pt"
"""The output embedding beside cached hidden states."""

SHARD_TOKENS = 1 << 18
"""Tokens of a shard, about: what a run that is killed loses at most."""


@dataclass(frozen=True)
class CacheSummary:
    """What came of caching.

    Attributes
    ----------
    path, model : str
    kept : dict
        The format; see `TargetFormat.describe`.
    windows, length, positions : int
        Windows in the cache, tokens of each, and their product.
    new_windows : int
        Windows that this run added; the others were there, or stood in the text twice.
    size_bytes : int
        Of the shards.
    head_bytes : int
        Of the output embedding beside hidden states: the same for any number of windows.
    bytes_per_token : float
        size_bytes / positions.
    mean_cut_mass : float
        Mean mass beyond the kept tokens.
    seconds : float
        Of this run.
    """

    path: str
    model: str
    kept: dict[str, Any]
    windows: int
    length: int
    positions: int
    new_windows: int
    size_bytes: int
    head_bytes: int
    bytes_per_token: float
    mean_cut_mass: float
    seconds: float


def write_cache(
    teacher: NeuralTeacher | CachedTeacher,
    windows: TokenWindows,
    out: str | Path,
    *,
    kept: TargetFormat | None = None,
    shard_tokens: int = SHARD_TOKENS,
    rows: int = 8,
    overwrite: bool = False,
    progress: Progress = silent,
) -> CacheSummary:
    """Cache what a teacher says of windows of tokens.

    Parameters
    ----------
    teacher : NeuralTeacher or CachedTeacher
        A model; or a cache of hidden states, of which one in another format is made without the model.
    windows : TokenWindows
        Those that are to be trained on; their order doesn't matter.
    out : path
        A new folder; or a cache of the same teacher, format and length, which is completed.
    kept : TargetFormat, optional
        What is kept; the teacher's own `kept` by default.
    shard_tokens : int
        Tokens of a shard, about.
    rows : int
        Windows that are asked about at once.
    overwrite : bool
        Begin anew where there is a cache already.
    progress : Progress
        Told about the stage "cache".

    Returns
    -------
    CacheSummary

    Raises
    ------
    CacheError
        A cache that was begun with another teacher, format or length, or is damaged.
    ConfigError
        A format that the teacher can't give.
    OutputError
        If it can't be written, `out` holds something else, or another run is writing there.
    """
    if min(shard_tokens, rows) < 1:
        raise ConfigError(f"shard_tokens is {shard_tokens} and rows {rows}: give at least 1 of both")
    out, kept, begin = Path(out), kept or teacher.kept, time.perf_counter()
    if kept.kind not in CACHE_KINDS:
        raise ConfigError(f"a cache can't keep {kept.kind!r}: give one of {', '.join(CACHE_KINDS)}")
    is_hidden = kept.kind == "hidden"
    if not is_hidden:
        kept.check_vocabulary(teacher.vocab_size)
    fields: dict[str, Any] = {
        "teacher": teacher.identity(),
        "kept": kept.describe(),
        "length": windows.length,
        "hidden_size": int(teacher.output_embedding()[0].shape[1]) if is_hidden else 0,
        "shard_windows": max(1, shard_tokens // windows.length),
        "head": None,
        "shards": [],
    }
    head = _head_content(teacher) if is_hidden else None
    if head is not None:
        fields["head"] = {"file": HEAD, "bytes": len(head), "sha256": hashlib.sha256(head).hexdigest()}
    with held_folder(out, "being written"):
        prepare_cache(out, fields, head, overwrite=overwrite)
        seen = {key.tobytes() for entry in fields["shards"] for key in Shard(out / entry["file"], entry).keys}
        known = len(seen)
        codec = RecordCodec(kept, teacher.vocab_size, windows.length, fields["hidden_size"])
        done = 0
        for read, ids in _new_windows(windows, seen, fields["shard_windows"]):
            records: list[bytes] = []
            cut = 0.0
            for lo in range(0, len(ids), rows):
                progress(
                    "cache", done + (read - done) * lo / len(ids), len(windows), (read - len(ids) + lo) * windows.length
                )
                found, mass = _records(teacher, ids[lo : lo + rows], codec)
                records += found
                cut += mass
            path = out / shard_name(len(fields["shards"]))
            fields["shards"].append({**write_shard(path, window_keys(ids), records), "cut_mass": cut})
            write_manifest(out, fields)
            done = read
    progress("cache", len(windows), len(windows), len(windows) * windows.length)
    return summary_of(out, fields, kept, len(seen) - known, time.perf_counter() - begin)


def prepare_cache(out: Path, fields: dict[str, Any], head: bytes | None, *, overwrite: bool) -> None:
    """Write an empty manifest, or take over the shards of a cache that is to be completed; in a folder that is held.

    What killed runs left is removed, and so are the shards of a cache that is begun anew; files of others stay.
    """
    begun = None
    if (out / MANIFEST).is_file() or overwrite:
        begun = read_manifest(out)  # never touch what isn't a cache
    if begun is None:
        others = [name for name in os.listdir(out) if name != LOCK_FILE and not is_leftover(name)]
        if others:
            raise OutputError(f"{out} is not empty and holds no cache: name a new folder")
    elif not overwrite:
        for name in ("teacher", "kept", "length", "hidden_size", "shard_windows", "head"):
            if begun[name] != fields[name]:
                raise CacheError(
                    f"the cache {out} was begun with {name} {begun[name]} and this run has {fields[name]}: write "
                    "elsewhere, or begin anew with overwrite"
                )
        fields["shards"] = begun["shards"]
    if begun is None or overwrite:
        write_manifest(out, fields)
    clear_strays(out, fields)
    if head is not None and (begun is None or overwrite or not (out / HEAD).is_file()):
        write_bytes(out / HEAD, head)
    elif head is None and overwrite:
        (out / HEAD).unlink(missing_ok=True)


def _new_windows(windows: TokenWindows, seen: set[bytes], size: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Windows that weren't seen yet, `size` at a time: how many of all were read so far, and the new ones (B, T)."""
    held: list[npt.NDArray[np.int64]] = []
    for number in range(len(windows)):
        ids = windows[number]["input_ids"]
        key = window_keys(ids[None])[0]
        if key not in seen:
            seen.add(key)
            held.append(ids)
        if len(held) == size:
            yield number + 1, np.stack(held)
            held = []
    if held:
        yield len(windows), np.stack(held)


def _records(
    teacher: NeuralTeacher | CachedTeacher, batch: npt.NDArray[np.int64], codec: RecordCodec
) -> tuple[list[bytes], float]:
    """The records of a batch, and the mass that they cut off."""
    length = batch.shape[1]
    if codec.kept.kind == "hidden":
        return [codec.encode_hidden(part) for part in teacher.hidden_states(batch).split(length)], 0.0
    kept = kept_rows(teacher, batch, codec.kept)
    records, first = [], 0
    for lo in range(0, kept.lengths.shape[0], length):
        lengths = kept.lengths[lo : lo + length]
        last = first + int(lengths.sum())
        part = kept._replace(
            lengths=lengths,
            token_ids=kept.token_ids[first:last],
            probs=kept.probs[first:last],
            tail=kept.tail[lo : lo + length],
        )
        records.append(codec.encode_sparse(part))
        first = last
    return records, float(kept.tail.double().sum())


def _head_content(teacher: NeuralTeacher | CachedTeacher) -> bytes:
    """The output embedding as bytes."""
    weight, bias = teacher.output_embedding()
    buffer = io.BytesIO()
    torch.save({"weight": weight.cpu().clone(), "bias": None if bias is None else bias.cpu().clone()}, buffer)
    return buffer.getvalue()


def summary_of(out: Path, fields: dict[str, Any], kept: TargetFormat, new: int, seconds: float) -> CacheSummary:
    """What the shards of a manifest come to."""
    windows = sum(entry["windows"] for entry in fields["shards"])
    positions = windows * fields["length"]
    size = sum(entry["bytes"] for entry in fields["shards"])
    return CacheSummary(
        path=str(out),
        model=fields["teacher"]["model"],
        kept=kept.describe(),
        windows=windows,
        length=fields["length"],
        positions=positions,
        new_windows=new,
        size_bytes=size,
        head_bytes=fields["head"]["bytes"] if fields["head"] else 0,
        bytes_per_token=size / max(1, positions),
        mean_cut_mass=sum(entry["cut_mass"] for entry in fields["shards"]) / max(1, positions),
        seconds=seconds,
    )
