"""Other people's top-k logits as a cache of ours: pairs of a window and what is kept of it go in, in any order."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import InputError
from corpus_teacher.files import held_folder
from corpus_teacher.neural.caching import SHARD_TOKENS, CacheSummary, prepare_cache, summary_of
from corpus_teacher.neural.coding import RecordCodec
from corpus_teacher.neural.formats import SparseRows, TargetFormat
from corpus_teacher.neural.identity import token_rows, window_keys
from corpus_teacher.neural.shards import Shard, shard_name, write_manifest, write_shard


def import_rows(
    pairs: Iterable[tuple[npt.NDArray[np.integer[Any]], SparseRows]],
    out: str | Path,
    *,
    vocab_size: int,
    k: int,
    name: str,
    precision: str = "fp16",
    tokenizer: Tokenizer | None = None,
    shard_tokens: int = SHARD_TOKENS,
) -> CacheSummary:
    """Make a cache of windows whose targets are there already.

    Parameters
    ----------
    pairs : iterable of (ndarray of shape (T,), SparseRows)
        As `distillkit.read_distillkit` yields them; those of `megatron.read_megatron` beside their windows. All windows
        of one length; one that comes twice is taken once.
    out : path
        A new folder, or one that was begun with the same arguments, which is completed.
    vocab_size : int
        V.
    k : int
        The most tokens of a position.
    name : str
        Of the teacher, for reports.
    precision : {"fp16", "bf16", "fp32", "int8"}
    tokenizer : Tokenizer, optional
        The teacher's; without it no student's can be compared.
    shard_tokens : int
        As in `write_cache`.

    Returns
    -------
    CacheSummary

    Raises
    ------
    InputError
        No windows, windows of different lengths, or targets of other numbers of positions or tokens.
    CacheError, OutputError
        As `write_cache`.
    """
    begin, out = time.perf_counter(), Path(out)
    kept = TargetFormat("top-p", k=k, p=1.0, precision=precision)
    kept.check_vocabulary(vocab_size)
    fields: dict[str, Any] = {}
    codec: RecordCodec | None = None
    held: dict[bytes, bytes] = {}
    seen: set[bytes] = set()
    known, cut = 0, 0.0

    def write() -> None:
        file = out / shard_name(len(fields["shards"]))
        fields["shards"].append({**write_shard(file, list(held), list(held.values())), "cut_mass": cut})
        write_manifest(out, fields)
        held.clear()

    with ExitStack() as held_while:
        for ids, rows in pairs:
            window = token_rows(ids, vocab_size)
            length = window.shape[1]
            if codec is None:
                codec = RecordCodec(kept, vocab_size, length)
                fields = _fields(name, vocab_size, tokenizer, kept, length, max(1, shard_tokens // length))
                held_while.enter_context(held_folder(out, "being written"))
                prepare_cache(out, fields, None, overwrite=False)
                seen = {key.tobytes() for entry in fields["shards"] for key in Shard(out / entry["file"], entry).keys}
                known = len(seen)
            if length != codec.length or rows.lengths.shape[0] != length or int(rows.lengths.max()) > k:
                raise InputError(
                    f"a window of {length} tokens comes with {rows.lengths.shape[0]} positions of at most "
                    f"{int(rows.lengths.max())} tokens: all need {codec.length} positions of at most {k}"
                )
            key = window_keys(window)[0]
            if key not in seen:
                seen.add(key)
                held[key] = codec.encode_sparse(rows)
                cut += float(rows.tail.double().sum())
            if len(held) == fields["shard_windows"]:
                write()
                cut = 0.0
        if codec is None:
            raise InputError("there are no windows to import: the source is empty")
        if held:
            write()
    return summary_of(out, fields, kept, len(seen) - known, time.perf_counter() - begin)


def _fields(
    name: str, vocab_size: int, tokenizer: Tokenizer | None, kept: TargetFormat, length: int, shard_windows: int
) -> dict[str, Any]:
    """The manifest of a cache without shards."""
    return {
        "teacher": {
            "model": name,
            "model_fingerprint": None,
            "model_dtype": None,
            "vocab_size": vocab_size,
            "tokenizer": tokenizer.spec if tokenizer else None,
            "tokenizer_fingerprint": tokenizer.fingerprint if tokenizer else None,
        },
        "kept": kept.describe(),
        "length": length,
        "hidden_size": 0,
        "shard_windows": shard_windows,
        "head": None,
        "shards": [],
    }
