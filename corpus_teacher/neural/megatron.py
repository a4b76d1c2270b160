"""Megatron-LM's offline top-k logits: read.

A run leaves tar files ``cp{C}_dp{D}__{iteration}.tar`` (context- and data-parallel rank, first iteration) beside one
`_meta.json`; each holds ``{iteration}.pt.zst``, a dictionary of tensors saved by torch and compressed by zstd:

- log-probabilities, float16, bfloat16 or float32, of shape (…, k); −1000 marks an entry that isn't there;
- the low 16 bits of the token ids, uint16 (or int16), of the same shape;
- the 17th bit of the ids, bool, of the same shape: so V ≤ 131,072; an id of 131,071 beside a mark is Megatron's −1.

The three are told apart by their types, not by their names. Megatron reads such files by position: same seed, order,
lengths and batch size as in the run that wrote them. Here the caller says which windows they are of, and they become a
cache that is keyed by content.

Verified against: files that a test writes by this description. Not verified against files of Megatron-LM itself.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zstandard
from torch import Tensor

from corpus_teacher.errors import InputError
from corpus_teacher.neural.distillkit import rows_from_logs
from corpus_teacher.neural.formats import SparseRows

MAX_VOCAB = 1 << 17
_ABSENT = -999.0  # the sentinel is −1000, which float16 and bfloat16 hold exactly
_TAR = re.compile(r"cp(\d+)_dp(\d+)__(\d+)\.tar")
_MEMBER = re.compile(r"(\d+)\.pt\.zst")


def read_megatron_meta(folder: str | Path) -> dict[str, Any]:
    """What `_meta.json` says of the run.

    Raises
    ------
    InputError
    """
    path = Path(folder) / "_meta.json"
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} can't be read ({error}): name the folder that Megatron's logits were saved in"
        ) from error
    return dict(meta)


def read_megatron(
    folder: str | Path, vocab_size: int, *, context_rank: int = 0, data_rank: int = 0
) -> Iterator[tuple[int, SparseRows]]:
    """Kept tokens of each iteration, in order.

    Parameters
    ----------
    folder : path
        With `_meta.json` and the tar files.
    vocab_size : int
        V, at most 131,072.
    context_rank, data_rank : int
        Which process's share.

    Yields
    ------
    iteration : int
    rows : SparseRows
        Of all positions of the iteration in the order of the tensors: their leading dimensions, flattened.

    Raises
    ------
    InputError
        A vocabulary above 2^17, no such file, or content of another form.
    """
    if vocab_size > MAX_VOCAB:
        raise InputError(f"Megatron's logits hold ids of 17 bits, and the vocabulary has {vocab_size:,} tokens")
    read_megatron_meta(folder)
    found = [(match, path) for path in Path(folder).iterdir() if (match := _TAR.fullmatch(path.name))]
    ours = sorted(
        (int(match[3]), path) for match, path in found if (int(match[1]), int(match[2])) == (context_rank, data_rank)
    )
    if not ours:
        raise InputError(f"{folder} holds no cp{context_rank}_dp{data_rank}__N.tar: check the ranks")
    for _, path in ours:
        yield from _read_tar(path, vocab_size)


def _read_tar(path: Path, vocab_size: int) -> Iterator[tuple[int, SparseRows]]:
    try:
        with tarfile.open(path) as archive:
            for iteration, member in _members(archive):
                file = archive.extractfile(member)
                content = b"" if file is None else file.read()
                yield iteration, _rows(content, f"{path}:{member.name}", vocab_size)
    except tarfile.TarError as error:
        raise InputError(f"{path} can't be read as a tar file: {error}") from error


def _members(archive: tarfile.TarFile) -> list[tuple[int, tarfile.TarInfo]]:
    """The iterations of an archive, in order."""
    named = [(_MEMBER.fullmatch(Path(member.name).name), member) for member in archive.getmembers()]
    return sorted(((int(match[1]), member) for match, member in named if match), key=lambda pair: pair[0])


def _rows(content: bytes, name: str, vocab_size: int) -> SparseRows:
    """The kept tokens of one compressed dictionary."""
    try:
        raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read()
        saved = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # zstd, pickle and zip all have errors of their own
        raise InputError(f"{name} can't be read: {str(error).splitlines()[0]}") from error
    tensors = [value for value in saved.values() if isinstance(value, Tensor)] if isinstance(saved, dict) else []
    values = [tensor for tensor in tensors if tensor.is_floating_point()]
    low = [tensor for tensor in tensors if tensor.dtype in (torch.uint16, torch.int16)]
    high = [tensor for tensor in tensors if tensor.dtype == torch.bool]
    if len(values) != 1 or len(low) != 1 or len(high) > 1 or any(t.shape != values[0].shape for t in (*low, *high)):
        held = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in tensors) or "no tensors"
        raise InputError(
            f"{name} holds {held}: expected log-probabilities, uint16 ids and their bool 17th bit, of one shape"
        )
    k = values[0].shape[-1]
    logs = values[0].float().numpy().reshape(-1, k)
    ids = low[0].view(torch.int16).numpy().view(np.uint16).astype(np.int64).reshape(-1, k)
    if high:
        ids = ids | (high[0].numpy().reshape(-1, k).astype(np.int64) << 16)
    counted: npt.NDArray[np.bool_] = logs > _ABSENT
    return rows_from_logs(ids, logs, vocab_size, counted)
