"""An index that changes: it grows, loses documents, merges shards, is converted; see `corpus_index.shard_changes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import corpus_index
from corpus_index import CorpusIndex, working_s
from corpus_index.shard_changes import shards_of

from corpus_teacher.data.build import BuildOptions, StageClock, ready_corpus, shard_tokens_of
from corpus_teacher.data.documents import Progress, ReadLog, silent
from corpus_teacher.data.opening import index_tokenizer, open_index
from corpus_teacher.data.pipeline import TokenFile, tokenize_documents
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.tokens import are_ready
from corpus_teacher.errors import ConfigError
from corpus_teacher.storage import refuse_url


@dataclass(frozen=True)
class IndexChange:
    """What became of an index.

    Parameters
    ----------
    path : str
    documents_before, num_documents, tokens_before, num_tokens, shards_before, num_shards : int
    total_s : float
        Seconds of all, those of the compiler left out.
    notes : tuple of str
        What the user should know, as sentences.
    """

    path: str
    documents_before: int
    num_documents: int
    tokens_before: int
    num_tokens: int
    shards_before: int
    num_shards: int
    total_s: float
    notes: tuple[str, ...] = ()


def append_sources(
    specs: list[str], path: str | Path, options: BuildOptions | None = None, *, progress: Progress = silent
) -> IndexChange:
    """Add whatever the user named to an index, as a shard; old shards stay as they are.

    Parameters
    ----------
    specs : list of str
        See `find_sources`.
    path : str or Path
        An index of either kind.
    options : BuildOptions, optional
        How to read. The tokenizer, the vocabulary and the end of a document are the index's.
    progress : callable, optional

    Raises
    ------
    InputError, TokenizerError, CorpusError, OutputError, IndexFormatError, IndexWriteError
        See there; the index stays as it is.
    """
    refuse_url(path)
    options, begin, path = options or BuildOptions(), working_s(), Path(path)
    log, notes = ReadLog(), list[str]()
    with open_index(path) as index:
        before = _facts(index)
        inventory = find_sources(specs, kind=options.kind)
        corpus: TokenFile
        if are_ready(inventory, options.read):
            asked = replace(options, tokenizer=None, vocab_size=index.vocab_size, end_of_document=index.end_of_document)
            _, corpus, _, _ = ready_corpus(inventory, path, asked, StageClock(), notes, progress)
        else:
            corpus = tokenize_documents(
                inventory.documents(options.read, log),
                index_tokenizer(index, options.tokenizer),
                folder=path.parent,
                workers=options.workers,
                progress=progress,
                log=log,
                total=inventory.size_bytes,
                keep_names=True,
            )
        shard_tokens = shard_tokens_of(options, index.vocab_size, corpus.num_documents / corpus.tokens.size)
        metadata = {
            "sources": [*index.metadata.get("sources", []), *specs],
            "num_files": (index.metadata.get("num_files") or 0) + len(inventory.sources),
            "num_bytes": index.metadata.get("num_bytes", 0) + corpus.num_bytes,
        }
    with corpus_index.append_documents(
        path,
        corpus.tokens,
        doc_starts=corpus.doc_starts,
        document_names=corpus.names,
        metadata=metadata,
        shard_tokens=shard_tokens,
        workers=options.workers,
        progress=lambda stage, share: progress(f"build: {stage}", share, 1.0),
        memory=options.memory,
    ) as index:
        return IndexChange(*_paired(path, before, _facts(index)), working_s() - begin, (*notes, *log.sentences))


def merge_index(path: str | Path, options: BuildOptions | None = None, *, progress: Progress = silent) -> IndexChange:
    """Make fewer, larger shards, as large as the options' shard_tokens or memory allow.

    Raises
    ------
    IndexFormatError, IndexWriteError
    """
    refuse_url(path)
    options, begin = options or BuildOptions(), working_s()
    with open_index(path) as index:
        before, density = _facts(index), index.num_documents / index.num_tokens
        shard_tokens = shard_tokens_of(options, index.vocab_size, density, copies=2)
    with corpus_index.merge_shards(
        path,
        shard_tokens=shard_tokens,
        workers=options.workers,
        progress=lambda stage, share: progress(f"build: {stage}", share, 1.0),
        memory=options.memory,
    ) as index:
        return IndexChange(*_paired(path, before, _facts(index)), working_s() - begin)


def convert_index(
    path: str | Path, layout: str, *, out: str | Path | None = None, force: bool = False, workers: int | None = None
) -> None:
    """Write an index in another layout, in its place or to another folder; see `corpus_index.convert_index`.

    Raises
    ------
    QueryError, IndexExistsError, IndexFormatError, IndexWriteError
    """
    refuse_url(path)
    if out is not None:
        refuse_url(out)
    corpus_index.convert_index(path, layout, out=out, overwrite=force, workers=workers).close()


def remove_from_index(
    path: str | Path, documents: Sequence[str | int], *, workers: int | None = None, progress: Progress = silent
) -> IndexChange:
    """Take documents out of an index.

    Parameters
    ----------
    path : str or Path
    documents : sequence of str or int
        Numbers, names, or files with a number or a name on each line. Of a word that is several of these, the number
        counts first, then the name.

    Raises
    ------
    QueryError
        If a document isn't there.
    ConfigError
        If none is named.
    CorpusError, IndexFormatError, IndexWriteError
    """
    refuse_url(path)
    begin = working_s()
    if not documents:
        raise ConfigError("no document is named: give numbers, names, or files of them (`document`)")
    with open_index(path) as index:
        before, numbers = _facts(index), _numbers(index, documents)
    with corpus_index.remove_documents(
        path, numbers, workers=workers, progress=lambda stage, share: progress(f"build: {stage}", share, 1.0)
    ) as index:
        return IndexChange(*_paired(path, before, _facts(index)), working_s() - begin)


def _numbers(index: CorpusIndex, documents: Sequence[str | int]) -> list[int]:
    """Numbers of documents from words of a user."""
    numbers, names = set[int](), set[str]()
    known = {document.name for document in index.document_names} if index.document_names is not None else set()
    for word in map(str, documents):
        file = Path(word)
        if not word.isdecimal() and word not in known and file.is_file():
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        else:
            lines = [word]
        numbers.update(int(line) for line in lines if line.isdecimal())
        names.update(line for line in lines if line and not line.isdecimal())
    if names:
        numbers.update(corpus_index.find_documents(index, sorted(names)).tolist())
    return sorted(numbers)


def _facts(index: CorpusIndex) -> tuple[int, int, int]:
    return index.num_documents, index.num_tokens, len(shards_of(index))


def _paired(
    path: str | Path, before: tuple[int, int, int], after: tuple[int, int, int]
) -> tuple[str, int, int, int, int, int, int]:
    return str(path), before[0], after[0], before[1], after[1], before[2], after[2]
