"""From names to a cache: a model, a text and a folder, as the command line names them."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import torch

from corpus_teacher.data.documents import Progress, ReadLog, silent
from corpus_teacher.data.opening import open_index
from corpus_teacher.data.pipeline import tokenize_documents
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.ready_tokens import join_ready_tokens, open_ready_tokens
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.data.windows import TokenWindows
from corpus_teacher.errors import ConfigError, TokenizerError
from corpus_teacher.neural.cached import CachedTeacher
from corpus_teacher.neural.caching import SHARD_TOKENS, CacheSummary, write_cache
from corpus_teacher.neural.formats import TargetFormat
from corpus_teacher.neural.identity import check_same_tokenizer
from corpus_teacher.neural.live import NeuralTeacher
from corpus_teacher.neural.shards import MANIFEST


def cache_teacher(
    model: str | Path,
    data: list[str],
    out: str | Path,
    *,
    kept: TargetFormat | None = None,
    length: int = 1024,
    limit: int | None = None,
    tokenizer: str | None = None,
    text_field: str = "text",
    token_dtype: str = "auto",
    dtype: str | None = None,
    device: str | None = None,
    rows: int = 8,
    shard_tokens: int = SHARD_TOKENS,
    overwrite: bool = False,
    progress: Progress = silent,
) -> CacheSummary:
    """Cache a model by its name on text, ready tokens, or an index: what the command line does.

    Parameters
    ----------
    model : str or Path
        As `load_model` loads it; or a cache of hidden states.
    data : list of str
        One folder of an index, whose windows are cached as training cuts them; or sources as `find_sources` takes them.
    length : int
        T.
    limit : int, optional
        Only the first tokens.
    tokenizer : str, optional
        The teacher's, where it has none beside it; for ready tokens, the one they were made with.
    text_field, token_dtype
        As in `BuildOptions`: the key of the text, the integers of a raw .bin.
    dtype : str, optional
        Of the model: "float32", "bfloat16" or "float16".
    device : str, optional
        Of torch.
    kept, rows, shard_tokens, overwrite, progress
        As in `write_cache`.

    Returns
    -------
    CacheSummary

    Raises
    ------
    InputError, TokenizerError, ConfigError, CacheError, OutputError, IndexFormatError
    """
    kept = kept or TargetFormat()
    types = {None: None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in types:
        raise ConfigError(f"dtype is {dtype!r}: give float32, bfloat16 or float16")
    progress("load the model", 0, None)
    teacher: NeuralTeacher | CachedTeacher
    if (Path(model) / MANIFEST).is_file():
        teacher = CachedTeacher(model, device=device or "cpu")
        own = None
    else:
        teacher = NeuralTeacher(model, tokenizer=tokenizer, kept=kept, dtype=types[dtype], device=device, rows=rows)
        own = teacher.tokenizer
    with contextlib.ExitStack() as stack:
        if len(data) == 1 and (Path(data[0]) / MANIFEST).is_file():
            index = stack.enter_context(open_index(data[0]))
            if index.metadata.get("tokenizer"):
                _check_own(teacher, load_tokenizer(index))
            if index.vocab_size > teacher.vocab_size:
                raise ConfigError(
                    f"the index {data[0]} has {index.vocab_size:,} tokens and the teacher {teacher.vocab_size:,}: "
                    "build the index with the teacher's tokenizer"
                )
            tokens, starts = index.tokens, index.doc_starts
        else:
            tokens, starts = _read(data, teacher, own, text_field, token_dtype, progress)
        if limit is not None:
            tokens, starts = tokens[:limit], starts[starts <= limit]
        windows = TokenWindows(tokens, length, doc_starts=starts, shuffle=False)
        return write_cache(
            teacher,
            windows,
            out,
            kept=kept,
            shard_tokens=shard_tokens,
            rows=rows,
            overwrite=overwrite,
            progress=progress,
        )


def _read(
    data: list[str],
    teacher: NeuralTeacher | CachedTeacher,
    own: Tokenizer | None,
    text_field: str,
    token_dtype: str,
    progress: Progress,
) -> tuple[Any, Any]:
    """Tokens and starts of documents of sources."""
    inventory = find_sources(data)
    ready = [source for source in inventory.sources if source.kind == "tokens"]
    folder = Path(tempfile.gettempdir())
    if ready and len(ready) < len(inventory.sources):
        raise ConfigError(f"ready tokens and text don't go together: {ready[0].name} holds tokens")
    if ready:
        files = [open_ready_tokens(Path(source.name), dtype=token_dtype) for source in ready]
        corpus, _ = join_ready_tokens(
            files, vocab_size=teacher.vocab_size, end_of_document=None, folder=folder, notes=[], progress=progress
        )
    elif own is None:
        raise TokenizerError(
            "the teacher has no tokenizer to read text with: name it with --tokenizer, or give an index or ready tokens"
        )
    else:
        documents = inventory.documents(ReadOptions(text_field=text_field), ReadLog())
        corpus = tokenize_documents(documents, own, folder=folder, progress=progress, total=inventory.size_bytes)
    return corpus.tokens, corpus.doc_starts


def _check_own(teacher: NeuralTeacher | CachedTeacher, student: Tokenizer) -> None:
    """Refuse the index of another tokenizer; a teacher without one is taken at the user's word."""
    if isinstance(teacher, CachedTeacher):
        if teacher.manifest["teacher"]["tokenizer_fingerprint"] is not None:
            CachedTeacher(teacher.path, student_tokenizer=student)
    elif teacher.tokenizer is not None:
        check_same_tokenizer(teacher.tokenizer, student)
