"""The corpus teacher's top-k in the files that other trainers read: for those whose trainer is not to be touched.

- `megatron`: a folder with Megatron-LM's offline logits as its own reader takes them (version 1 of what `read_megatron`
  describes, one process): a member for each iteration, counted from 0, with one microbatch of `rows` windows in their
  order. That reader wants the hash of the student's data, which Megatron computes from its arguments.
- `verl`: a Parquet file of windows with `teacher_ids` and `teacher_logprobs`, (T, k) each, as verl's losses take them:
  row t is of the token after t, beside the student's logits of position t.
- `tinker`: the same columns a token later, as tinker gives `topk_prompt_logprobs`: row t is of token t after those
  before it; row 0, of which nothing is known, holds its fillers: id 0, log-probability −99,999.
- `distillkit`: a Parquet file with DistillKit's columns, row t of which is of the token after t, as Megatron's.

The k likeliest tokens are those of the flat targets that the teacher gives in a training, with what they have of the
base; k pairs a position hold what k pairs can: the rest of the mass is known by its size only.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zstandard
from torch import Tensor

from corpus_teacher.data.documents import UNPACK_RATIO, Progress, silent
from corpus_teacher.data.opening import open_index
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokens import read_tokens
from corpus_teacher.errors import ConfigError, OutputError
from corpus_teacher.files import new_folder, whole_file
from corpus_teacher.names import EXPORTS
from corpus_teacher.neural.distillkit import IDS, LOGS, to_distillkit
from corpus_teacher.neural.distillkit_format import ColumnFormat
from corpus_teacher.neural.formats import SparseRows
from corpus_teacher.neural.megatron import MAX_VOCAB
from corpus_teacher.neural.shards import MANIFEST
from corpus_teacher.settings import check_known
from corpus_teacher.targets.likeliest import top_rows
from corpus_teacher.teacher import CorpusTeacher

NOTHING = -99_999.0
"""The log-probability of a filler, as tinker writes it."""


@dataclass(frozen=True)
class ExportedTargets:
    """What `corpus-teacher teacher export-targets` tells.

    Parameters
    ----------
    path, format : str
    windows, length, k : int
        Windows of `length` tokens, k tokens at each.
    kept_mass : float
        The probability of the k tokens, mean over the positions.
    size_bytes : int
    seconds : float
    """

    path: str
    format: str
    windows: int
    length: int
    k: int
    kept_mass: float
    size_bytes: int
    seconds: float


def export_targets(
    teacher: CorpusTeacher,
    data: list[str],
    out: str | Path,
    *,
    format: str,
    k: int = 64,
    length: int = 1024,
    rows: int = 16,
    limit: int | None = None,
    dataset_hash: str | None = None,
    text_field: str = "text",
    unpack_ratio: float = UNPACK_RATIO,
    token_dtype: str = "auto",
    tokenizer: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ExportedTargets:
    """Write the top-k of a corpus teacher for other people's trainers.

    Parameters
    ----------
    teacher : CorpusTeacher
    data : list of str
        The folder of an index (the teacher's own, say), whose windows are taken in order; or sources as
        `find_sources` takes them.
    out : path
        A new folder (megatron) or file.
    format : {"megatron", "verl", "tinker", "distillkit"}
    k : int
        Tokens a position, at most V.
    length : int
        T: windows are cut as training cuts them, and what is left at the end is dropped.
    rows : int
        Windows at once; of Megatron's files, of an iteration, which has one microbatch.
    limit : int, optional
        Only the first tokens.
    dataset_hash : str, optional
        Of Megatron's files: what its `compute_dataset_hash()` gives for the student's run, which refuses files of any
        other. None: the index's fingerprint, which every run refuses, naming its own.
    text_field, unpack_ratio, token_dtype, tokenizer
        Of text and raw tokens, as `index build` reads them.
    overwrite : bool
        Replace what stands there.

    Returns
    -------
    ExportedTargets

    Raises
    ------
    ConfigError, InputError, OutputError, TokenizerError, IndexFormatError
    """
    begin = time.perf_counter()
    check_known(format, EXPORTS, "format")
    for name, value in (("k", k), ("length", length), ("rows", rows)):
        if value < 1:
            raise ConfigError(f"{name} is {value}: give at least 1")
    if dataset_hash is not None and format != "megatron":
        raise ConfigError(f"dataset_hash is {dataset_hash!r}, and only Megatron's files have one: leave it out")
    if format == "megatron" and teacher.vocab_size > MAX_VOCAB:
        raise ConfigError(f"Megatron's logits hold ids of 17 bits, and the index has {teacher.vocab_size:,} tokens")
    k, out = min(k, teacher.vocab_size), Path(out)
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists: ask to overwrite it, or name another place")
    read = ReadOptions(text_field=text_field, unpack_ratio=unpack_ratio)
    with _tokens(teacher, data, limit, read, token_dtype, tokenizer, progress) as (tokens, starts, own):
        count = len(tokens) // length
        if not count:
            raise ConfigError(f"{len(tokens)} tokens don't fill one window of {length}: shorten the window")
        batches = _batches(teacher, tokens, starts, own, length, rows, k, progress)
        if format == "megatron":
            mass = _write_megatron(batches, out, teacher, k, dataset_hash or teacher.index.fingerprint, overwrite)
        else:
            write = {"verl": _write_verl, "tinker": _write_tinker, "distillkit": _write_distillkit}[format]
            mass = write(batches, out, teacher, k)
    files = [out] if out.is_file() else list(out.iterdir())
    size = sum(file.stat().st_size for file in files)
    return ExportedTargets(
        str(out), format, count, length, k, mass / (count * length), size, time.perf_counter() - begin
    )


Batches = Iterator[tuple[npt.NDArray[np.int64], Tensor, Tensor]]
"""Windows (B, T), and of each position the k likeliest tokens, (B · T, k), and their probabilities."""


@contextlib.contextmanager
def _tokens(
    teacher: CorpusTeacher,
    data: list[str],
    limit: int | None,
    read: ReadOptions,
    token_dtype: str,
    tokenizer: str | None,
    progress: Progress,
) -> Iterator[tuple[Any, npt.NDArray[Any], bool]]:
    """The tokens, where documents begin, and whether that is the corpus of the teacher's own index."""
    with contextlib.ExitStack() as stack:
        if len(data) == 1 and (Path(data[0]) / MANIFEST).is_file():
            index = stack.enter_context(open_index(data[0]))
            if index.vocab_size > teacher.vocab_size:
                raise ConfigError(
                    f"the index {data[0]} has {index.vocab_size:,} tokens and the teacher {teacher.vocab_size:,}: "
                    "build both with one tokenizer"
                )
            tokens, starts = index.tokens, index.doc_starts
            own = index.fingerprint == teacher.index.fingerprint
        else:
            described = teacher.index.metadata.get("tokenizer")
            words = load_tokenizer(tokenizer) if tokenizer else load_tokenizer(teacher.index) if described else None
            corpus, _ = read_tokens(
                data,
                words,
                vocab_size=teacher.vocab_size,
                end_of_document=teacher.index.end_of_document,
                read=read,
                dtype=token_dtype,
                without_tokenizer="the index has no tokenizer to read text with: name it (`tokenizer`), or give tokens",
                progress=progress,
            )
            tokens, starts, own = corpus.tokens, corpus.doc_starts, False
        yield (tokens, starts, own) if limit is None else (tokens[:limit], starts[starts <= limit], own)


def _batches(
    teacher: CorpusTeacher,
    tokens: Any,
    starts: npt.NDArray[Any],
    own: bool,
    length: int,
    rows: int,
    k: int,
    progress: Progress,
) -> Batches:
    count = len(tokens) // length
    starts = np.asarray(starts)
    for first in range(0, count, rows):
        number = np.arange(first, min(first + rows, count))
        begin = number * length
        text = np.asarray(tokens[int(begin[0]) : int(begin[-1]) + length + 1]).astype(np.int64)
        text = np.pad(text, (0, number.size * length + 1 - text.size), constant_values=-1)
        windows, following = text[:-1].reshape(-1, length), text[1:].reshape(-1, length)
        begins = np.zeros((number.size, length), np.bool_)
        inside = starts[(starts >= begin[0]) & (starts < begin[0] + begins.size)] - begin[0]
        begins.reshape(-1)[inside] = True
        following = following.copy()
        if inside.size:  # the first token of a document follows nothing
            before = inside[inside > 0] - 1
            following.reshape(-1)[before] = -1
        positions = begin[:, None] + np.arange(length) if own else None
        said = teacher(windows, following, starts_document=begins, positions=positions)
        yield windows, *top_rows(said, k)
        progress("targets", int(number[-1]) + 1, count, int((number[-1] + 1) * length))


def _write_megatron(
    batches: Batches, out: Path, teacher: CorpusTeacher, k: int, dataset_hash: str, overwrite: bool
) -> float:
    """One tar file: `_meta.json`, then for each iteration what torch saved, compressed: a list for each column."""
    mass, number = 0.0, 0
    with new_folder(out, ".exporting-", replace=overwrite) as folder:
        scratch = folder / "logits.tar"
        with tarfile.open(scratch, "w") as archive:
            saver = {"k": k, "p": None, "min_k": k, "save_dtype": "fp16"}
            meta = {"hash": dataset_hash, "identifiers": teacher.describe(), "saver": saver}
            _put(archive, "_meta.json", json.dumps(meta).encode())
            for number, (windows, ids, probs) in enumerate(batches):
                shape = (*windows.shape, k)
                mass += float(probs.sum())
                logs, tokens = (part.reshape(shape).transpose(0, 1).contiguous() for part in (_logs(probs), ids))
                saved = {
                    "values": [logs.half()],
                    "indices_low": [(tokens & 0xFFFF).to(torch.int32).to(torch.uint16)],
                    "bit_17": [(tokens >> 16).to(torch.bool)],
                }
                buffer = io.BytesIO()
                torch.save(saved, buffer)
                _put(archive, f"{number}.pt.zst", zstandard.ZstdCompressor().compress(buffer.getvalue()))
        scratch.rename(folder / f"cp0_dp0__{number}.tar")
    return mass


def _put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _write_verl(batches: Batches, out: Path, teacher: CorpusTeacher, k: int) -> float:
    return _write_rows(batches, out, teacher, k, later=False)


def _write_tinker(batches: Batches, out: Path, teacher: CorpusTeacher, k: int) -> float:
    return _write_rows(batches, out, teacher, k, later=True)


def _write_rows(batches: Batches, out: Path, teacher: CorpusTeacher, k: int, later: bool) -> float:
    """Ids and log-probabilities of each position as nested lists; `later`: at the token that they are of."""
    schema = pa.schema(
        [
            ("input_ids", pa.list_(pa.int32())),
            ("teacher_ids", pa.list_(pa.list_(pa.int32()))),
            ("teacher_logprobs", pa.list_(pa.list_(pa.float32()))),
        ],
        metadata={"corpus_teacher": json.dumps(teacher.describe())},
    )
    mass = 0.0
    with whole_file(out) as file, pq.ParquetWriter(file, schema) as writer:
        for windows, ids, probs in batches:
            mass += float(probs.sum())
            shape = (*windows.shape, k)
            tokens, logs = ids.reshape(shape).numpy(), _logs(probs).reshape(shape).numpy()
            if later:
                tokens = np.concatenate([np.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1)
                logs = np.concatenate([np.full_like(logs[:, :1], NOTHING), logs[:, :-1]], 1)
            columns = [list(windows), [list(one) for one in tokens], [list(one) for one in logs]]
            writer.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))
    return mass


def _write_distillkit(batches: Batches, out: Path, teacher: CorpusTeacher, k: int) -> float:
    form = ColumnFormat(teacher.vocab_size, k=k)
    packed = pa.list_(pa.list_(pa.uint8()))
    described = {"corpus_teacher": json.dumps({**teacher.describe(), "columns": asdict(form)})}
    schema = pa.schema([("input_ids", pa.list_(pa.uint64())), (LOGS, packed), (IDS, packed)], metadata=described)
    mass = 0.0
    with whole_file(out) as file, pq.ParquetWriter(file, schema) as writer:
        for windows, ids, probs in batches:
            mass += float(probs.sum())
            length = windows.shape[1]
            for number, window in enumerate(windows):
                part = slice(number * length, (number + 1) * length)
                tail = (1 - probs[part].sum(1)).clamp_min(0)
                kept = SparseRows(torch.full((length,), k), ids[part].reshape(-1), probs[part].reshape(-1), tail)
                columns = to_distillkit(kept, form)
                table = {"input_ids": [window.tolist()], **{name: [value] for name, value in columns.items()}}
                writer.write_table(pa.table(table, schema))
    return mass


def _logs(probs: Tensor) -> Tensor:
    """Log-probabilities that half precision holds: nothing below 2^-126 or so."""
    return probs.clamp_min(torch.finfo(torch.float32).tiny).log()
