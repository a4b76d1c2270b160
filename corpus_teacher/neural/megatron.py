"""Megatron-LM's offline top-k logits: read.

A run leaves tar files, one for some iterations of a data-parallel rank D (and, in older runs, of a context-parallel
rank C): ``cp{C}_dp{D}__{last}.tar``, ``dp{D}__{last}.tar`` or ``dp{D}__{first}-{end}.tar``. The first member,
`_meta.json`, says what was read and how it was saved; each other one, ``{iteration}.pt.zst`` or
``{first}-{end}.pt.zst``, is a dictionary that torch saved and zstd compressed, of tensors (version 2) or of lists with
a tensor for each microbatch (version 1):

- `values`: log-probabilities, float16, bfloat16 or float32, of shape (T, B, k), the sequence first; −1000 or −10,000
  marks an entry that isn't there;
- `indices_low`: the low 16 bits of the token ids, uint16;
- `bit_17`: the 17th bit of the ids, bool: so V ≤ 131,072; an id of 131,071 beside a mark is Megatron's −1.

Of several context-parallel ranks each has two chunks of the sequence, the rank's own and, from the end, its mirror
image; they are joined. Megatron reads such files by position: same seed and order as in the run that wrote them. Here
the caller says which windows they are of, and they become a cache that is keyed by content.

Verified against: Megatron-LM's own saver and reader of version 1 (d98e8a64, one process on a CPU, with and without
top-p: same ids, same values), and files of both versions that a test writes by this description. Not verified
against files of a run. Version 3, which keeps the text beside the logits in another layout, is refused.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zstandard
from torch import Tensor

from corpus_teacher.data.documents import UNPACK_RATIO
from corpus_teacher.data.records import one_line
from corpus_teacher.data.shards import read_exactly
from corpus_teacher.data.unpacking import FREE_BYTES
from corpus_teacher.errors import InputError
from corpus_teacher.files import parse_json
from corpus_teacher.neural.distillkit import rows_from_logs
from corpus_teacher.neural.formats import SparseRows

Array = npt.NDArray[Any]

MAX_VOCAB = 1 << 17
_ABSENT = -999.0  # the marks are −1000 and −10,000, which float16 and bfloat16 hold nearly
_META = "_meta.json"
_TAR = re.compile(r"(?:cp(\d+)_)?dp(\d+)__(?:(\d+)-)?(\d+)\.tar")
_MEMBER = re.compile(r"(\d+)(?:-\d+)?\.pt\.zst")


def read_megatron_meta(folder: str | Path) -> dict[str, Any]:
    """What `_meta.json` says of the run: its "hash", the "identifiers" of the data and the "saver"'s settings.

    Raises
    ------
    InputError
        No tar file, none with a `_meta.json`, or a version that isn't read.
    """
    for _, path in _tars(Path(folder)):
        with _opened(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if Path(member.name).name == _META else None
                if file is not None:
                    return _checked(file.read(), f"{path}:{member.name}")
    raise InputError(f"no tar file in {folder} holds a {_META}: name the folder that Megatron's logits were saved in")


def read_megatron(folder: str | Path, vocab_size: int, *, data_rank: int = 0) -> Iterator[tuple[int, list[SparseRows]]]:
    """Kept tokens of each iteration, in order.

    Parameters
    ----------
    folder : path
        With the tar files.
    vocab_size : int
        V, at most 131,072.
    data_rank : int
        Which data-parallel process's share.

    Yields
    ------
    iteration : int
        In newer files the first sample of it.
    rows : list of SparseRows
        Of T positions, one for each sequence of the iteration that this process read, in its order.

    Raises
    ------
    InputError
        A vocabulary above 2^17, no such file, or content of another form or version.
    """
    if vocab_size > MAX_VOCAB:
        raise InputError(f"Megatron's logits hold ids of 17 bits, and the vocabulary has {vocab_size:,} tokens")
    read_megatron_meta(folder)
    ours = [(match, path) for match, path in _tars(Path(folder)) if int(match[2]) == data_rank]
    if not ours:
        raise InputError(f"{folder} holds no file of dp{data_rank}: check the rank")
    groups: dict[int, dict[int, Path]] = {}
    for match, path in ours:
        groups.setdefault(int(match[4]), {})[int(match[1] or 0)] = path
    for _, paths in sorted(groups.items()):
        yield from _read_group([paths[rank] for rank in sorted(paths)], vocab_size)


def _tars(folder: Path) -> list[tuple[re.Match[str], Path]]:
    """The tar files of a folder, by their iterations."""
    try:
        found = [(match, path) for path in folder.iterdir() if (match := _TAR.fullmatch(path.name))]
    except OSError as error:
        raise InputError(f"{folder} can't be read: {error.strerror or error}") from error
    return sorted(found, key=lambda pair: (int(pair[0][4]), int(pair[0][2]), int(pair[0][1] or 0)))


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path) as archive:
            yield archive
    except tarfile.TarError as error:
        raise InputError(f"{path} can't be read as a tar file: {error}") from error


def _checked(content: bytes, name: str) -> dict[str, Any]:
    try:
        meta = dict(parse_json(content))
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} is no JSON object: {error}") from error
    saver = meta.get("saver")
    version = saver.get("format_version", 1) if isinstance(saver, dict) else 1
    if version not in (1, 2):
        raise InputError(f"{name} is of version {version!r}: versions 1 and 2 are read")
    return meta


def _read_group(paths: list[Path], vocab_size: int) -> Iterator[tuple[int, list[SparseRows]]]:
    """The iterations of one file, or of one file of each context-parallel rank."""
    with ExitStack() as opened:
        archives = [opened.enter_context(_opened(path)) for path in paths]
        members = [_members(archive) for archive in archives]
        for iteration in members[0]:
            parts = []
            for path, archive, own in zip(paths, archives, members, strict=True):
                if iteration not in own:
                    raise InputError(f"{path} lacks iteration {iteration}, which {paths[0].name} has")
                file = archive.extractfile(own[iteration])
                content = b"" if file is None else file.read()
                parts.append(_batches(content, f"{path}:{own[iteration].name}"))
            name = f"{paths[0]}:{members[0][iteration].name}"
            if len({len(part) for part in parts}) != 1:
                raise InputError(f"{name} has another number of microbatches than the other context-parallel ranks")
            made: list[SparseRows] = []
            for ranks in zip(*parts, strict=True):
                values, ids = (_joined([rank[place] for rank in ranks], name) for place in (0, 1))
                made += [
                    rows_from_logs(ids[:, row], values[:, row], vocab_size, values[:, row] > _ABSENT)
                    for row in range(values.shape[1])
                ]
            yield iteration, made


def _members(archive: tarfile.TarFile) -> dict[int, tarfile.TarInfo]:
    """The iterations of an archive, in order."""
    named = [(_MEMBER.fullmatch(Path(member.name).name), member) for member in archive.getmembers()]
    return {number: member for number, member in sorted(((int(match[1]), member) for match, member in named if match),
                                                        key=lambda pair: pair[0])}  # fmt: skip


def _joined(parts: list[Array], name: str) -> Array:
    """(T, B, k) of the context-parallel ranks' chunks, rank r having the r-th from either end."""
    if len(parts) == 1:
        return parts[0]
    half, odd = divmod(parts[0].shape[0], 2)
    width = max(part.shape[2] for part in parts)
    if odd or any(part.shape[:2] != parts[0].shape[:2] for part in parts):
        raise InputError(f"{name} doesn't have the same even number of positions as the other context-parallel ranks")
    absent = -1e4 if parts[0].dtype.kind == "f" else 0
    wide = [np.pad(part, ((0, 0), (0, 0), (0, width - part.shape[2])), constant_values=absent) for part in parts]
    return np.concatenate([part[:half] for part in wide] + [part[half:] for part in wide[::-1]])


def _batches(content: bytes, name: str) -> list[tuple[Array, Array]]:
    """Log-probabilities and ids, (T, B, k) each, of the microbatches of one compressed dictionary."""
    try:
        most = max(FREE_BYTES, int(UNPACK_RATIO * len(content)))
        raw = read_exactly(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)), most + 1)
        if len(raw) > most:
            raise InputError(f"it unpacks to more than {most:,} bytes, {UNPACK_RATIO:g} times its size")
        saved = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # zstd, pickle and zip all have errors of their own
        raise InputError(f"{name} can't be read: {one_line(error)}") from error
    held = saved if isinstance(saved, dict) else {}
    columns = [held.get(key) for key in ("values", "indices_low", "bit_17")]
    lists = [column if isinstance(column, list) else [column] for column in columns]
    if len({len(column) for column in lists}) != 1 or not all(_fits(*batch) for batch in zip(*lists, strict=False)):
        told = ", ".join(f"{key}: {_described(value)}" for key, value in held.items()) or "no dictionary"
        raise InputError(
            f"{name} holds {told}; expected values (floats), indices_low (uint16) and bit_17 (bool), (T, B, k) each"
        )
    found = []
    for values, low, high in zip(*lists, strict=True):
        ids = low.view(torch.int16).numpy().view(np.uint16).astype(np.int64) | (high.numpy().astype(np.int64) << 16)
        found.append((values.float().numpy(), ids))
    return found


def _fits(values: Any, low: Any, high: Any) -> bool:
    """Whether these are log-probabilities with their ids."""
    if not all(isinstance(one, Tensor) and one.ndim == 3 for one in (values, low, high)):
        return False
    types = values.is_floating_point(), low.dtype in (torch.uint16, torch.int16), high.dtype == torch.bool
    return all(types) and values.shape == low.shape == high.shape


def _described(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_described(one) for one in value[:2])}{', …' if len(value) > 2 else ''}]"
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
