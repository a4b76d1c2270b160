"""From names to a cache: a model, a text and a folder, as the command line names them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from corpus_teacher.data.documents import UNPACK_RATIO, Progress, silent
from corpus_teacher.data.opening import open_index
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.data.tokens import read_tokens
from corpus_teacher.data.windows import TokenWindows
from corpus_teacher.errors import ConfigError
from corpus_teacher.neural.cached import CachedTeacher
from corpus_teacher.neural.caching import SHARD_TOKENS, CacheSummary, write_cache
from corpus_teacher.neural.devices import find_device, find_dtype
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
    unpack_ratio: float = UNPACK_RATIO,
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
    text_field, unpack_ratio, token_dtype
        As in `ReadOptions` and `BuildOptions`: the key of the text, the bound of what files unpack to, the integers of
        a raw .bin.
    dtype, device : str, optional
        Of the model; see `find_dtype` and `find_device`.
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
    numbers, place = find_dtype(dtype), find_device(device)
    progress("load the model", 0, None)
    teacher: NeuralTeacher | CachedTeacher
    if (Path(model) / MANIFEST).is_file():
        teacher = CachedTeacher(model, device=place)
        own = None
    else:
        teacher = NeuralTeacher(model, tokenizer=tokenizer, kept=kept, dtype=numbers, device=place, rows=rows)
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
            corpus, _ = read_tokens(
                data,
                own,
                vocab_size=teacher.vocab_size,
                end_of_document=None,
                read=ReadOptions(text_field=text_field, unpack_ratio=unpack_ratio),
                dtype=token_dtype,
                without_tokenizer="the teacher has no tokenizer to read text with: name it (`tokenizer`), or give an "
                "index or ready tokens",
                progress=progress,
            )
            tokens, starts = corpus.tokens, corpus.doc_starts
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


def _check_own(teacher: NeuralTeacher | CachedTeacher, student: Tokenizer) -> None:
    """Refuse the index of another tokenizer; a teacher without one is taken at the user's word."""
    if isinstance(teacher, CachedTeacher):
        if teacher.manifest["teacher"]["tokenizer_fingerprint"] is not None:
            CachedTeacher(teacher.path, student_tokenizer=student)
    elif teacher.tokenizer is not None:
        check_same_tokenizer(teacher.tokenizer, student)
