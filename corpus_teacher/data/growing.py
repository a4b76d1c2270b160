"""An index that changes: it grows, loses documents, merges shards, is converted; see `corpus_index.shard_changes`."""

from __future__ import annotations

import os
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
from corpus_teacher.errors import ConfigError, InputError, QueryError
from corpus_teacher.storage import written_path

_MOST_SAID = 3  # documents that a summary of a removal names
_NUMBER, _NAME = "number:", "name:"


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
    path, here = _changed_path(path)
    options, begin = options or BuildOptions(), working_s()
    log, notes = ReadLog(), here
    with open_index(path) as index:
        before, fingerprint = _facts(index), index.fingerprint
        has_names = index.document_names is not None
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
        document_names=corpus.names if has_names else None,
        metadata=metadata,
        shard_tokens=shard_tokens,
        workers=options.workers,
        progress=lambda stage, share: progress(f"build: {stage}", share, 1.0),
        memory=options.memory,
        fingerprint=fingerprint,
    ) as index:
        return IndexChange(*_paired(path, before, _facts(index)), working_s() - begin, (*notes, *log.sentences))


def merge_index(path: str | Path, options: BuildOptions | None = None, *, progress: Progress = silent) -> IndexChange:
    """Make fewer, larger shards, as large as the options' shard_tokens or memory allow.

    Raises
    ------
    IndexFormatError, IndexWriteError
    """
    path, here = _changed_path(path)
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
        return IndexChange(*_paired(path, before, _facts(index)), working_s() - begin, tuple(here))


def convert_index(
    path: str | Path, layout: str, *, out: str | Path | None = None, force: bool = False, workers: int | None = None
) -> Path:
    """Write an index in another layout, in its place or to another folder, and say where it is now.

    See `corpus_index.convert_index`.

    Raises
    ------
    QueryError, IndexExistsError, IndexFormatError, IndexWriteError
    """
    path, _ = _changed_path(path)
    out = None if out is None else Path(os.path.abspath(written_path(out)))
    corpus_index.convert_index(path, layout, out=out, overwrite=force, workers=workers).close()
    return out or path


def remove_from_index(
    path: str | Path, documents: Sequence[str | int], *, workers: int | None = None, progress: Progress = silent
) -> IndexChange:
    """Take documents out of an index.

    Parameters
    ----------
    path : str or Path
    documents : sequence of str or int
        Numbers, names, or files with a number or a name on each line. `number:7` and `name:7` say which it is.

    Raises
    ------
    QueryError
        If a document isn't there, or a word is the number of one and the name of another.
    ConfigError
        If none is named.
    InputError
        If a file isn't text.
    CorpusError, IndexFormatError, IndexWriteError
    """
    path, here = _changed_path(path)
    begin = working_s()
    if not documents:
        raise ConfigError("no document is named: give numbers, names, or files of them (`document`)")
    with open_index(path) as index:
        before, numbers, fingerprint = _facts(index), _numbers(index, documents), index.fingerprint
        notes = [_went(index, numbers), *here]
    with corpus_index.remove_documents(
        path,
        numbers,
        workers=workers,
        progress=lambda stage, share: progress(f"build: {stage}", share, 1.0),
        fingerprint=fingerprint,
    ) as index:
        return IndexChange(*_paired(path, before, _facts(index)), working_s() - begin, tuple(notes))


def _changed_path(path: str | Path) -> tuple[Path, list[str]]:
    """The folder of an index that is to be changed, and what whoever stands in it should know."""
    whole = Path(os.path.abspath(written_path(path)))
    here = Path.cwd()
    inside = here == whole or whole in here.parents
    return whole, ["The folder was replaced by a new one of the same name: enter it again (cd)."] if inside else []


def _went(index: CorpusIndex, numbers: Sequence[int]) -> str:
    """Which documents go, in a sentence."""
    some = [(number, index.document(number).name) for number in numbers[:_MOST_SAID]]
    said = ", ".join(str(number) if name is None else f"{number} ({name})" for number, name in some)
    more = f" and {len(numbers) - len(some):,} more" if len(numbers) > len(some) else ""
    return f"Removed: document{'s' if len(numbers) > 1 else ''} {said}{more}."


def _numbers(index: CorpusIndex, documents: Sequence[str | int]) -> list[int]:
    """Numbers of documents from words of a user."""
    words = [str(word) for word in documents]
    named = _named(index, words)
    listed: list[str] = []
    for word in words:
        is_one = word in named or word.startswith((_NUMBER, _NAME)) or _is_number(word, index.num_documents)
        listed += [word] if is_one else _lines_of(word)
    named |= _named(index, listed)
    return sorted({number for word in listed for number in _numbers_of(index, word, named)})


def _named(index: CorpusIndex, words: Sequence[str]) -> dict[str, list[int]]:
    """The numbers of the documents that some words are names of, `name:` before them or not: a pass over all names."""
    wanted = {*words, *(word.removeprefix(_NAME) for word in words)}
    found: dict[str, list[int]] = {}
    for number, document in enumerate(index.document_names or ()):
        if document.name in wanted:
            found.setdefault(document.name, []).append(number)
    return found


def _numbers_of(index: CorpusIndex, word: str, named: dict[str, list[int]]) -> list[int]:
    """The documents that a word stands for."""
    number = word.removeprefix(_NUMBER)
    is_number, by_name = _is_number(number, index.num_documents), named.get(word, [])
    if is_number and by_name not in ([], [int(number)]):
        raise QueryError(
            f"{word} is the number of one document and the name of another: say number:{word} or name:{word}"
        )
    found = by_name or ([int(number)] if is_number else named.get(word.removeprefix(_NAME), []))
    if not found and number.isdecimal():
        raise QueryError(f"there is no document {number}: documents are 0 .. {index.num_documents - 1:,}")
    return found or corpus_index.find_documents(index, [word.removeprefix(_NAME)]).tolist()


def _is_number(word: str, num_documents: int) -> bool:
    """Whether a word is a document's number, as numbers are written."""
    return word.isascii() and word.isdecimal() and str(int(word[:20])) == word and int(word) < num_documents


def _lines_of(word: str) -> list[str]:
    """The lines of a file that are not empty; of what is no file, the word itself."""
    try:
        if not Path(word).is_file():
            return [word]
    except (OSError, ValueError):  # too long for a name of a file
        return [word]
    try:
        lines = Path(word).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{word} is not UTF-8 (byte {error.start}): give a file with a document's number or name on each line"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _facts(index: CorpusIndex) -> tuple[int, int, int]:
    return index.num_documents, index.num_tokens, len(shards_of(index))


def _paired(
    path: str | Path, before: tuple[int, int, int], after: tuple[int, int, int]
) -> tuple[str, int, int, int, int, int, int]:
    return str(path), before[0], after[0], before[1], after[1], before[2], after[2]
