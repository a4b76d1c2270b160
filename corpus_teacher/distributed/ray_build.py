"""Building an index as tasks of a Ray cluster: files are read and tokenised, and shards are built, on all machines.

Naively: `data.build.build_index_from_sources` on one machine. Here neighbouring files, some 64 MB together, are read
and tokenised by one task, whose tokens stay in Ray's object store; this process learns where documents end, cuts shards
just as a build on one machine does, and a task builds each. So the outcome is the same index, whichever machine did
what. A task whose worker dies is done again.

Sources and the folder of the index lie on storage that all machines share. Memory: a task that reads holds the tokens
of its files, one that builds about 28 bytes per token of its shard, which Ray is told.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex, build_index, open_index
from corpus_index.names import DocumentNames, NamesWriter, names_between
from corpus_index.sharded.shard_writer import cut_documents, event, shard_writer
from corpus_index.store import placed_folder

from corpus_teacher.data.build import (
    BuildOptions,
    BuildSummary,
    StageClock,
    prepare_target,
    ready_corpus,
    shard_tokens_of,
    summary_of,
    tokenizer_for,
    tokenizer_notes,
    with_chat,
)
from corpus_teacher.data.documents import Progress, ReadLog, silent
from corpus_teacher.data.indexing import TOKENIZER_FILE, index_metadata
from corpus_teacher.data.pipeline import check_text, encode_documents, name_of
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import Inventory, Source, find_sources
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.data.tokens import are_ready
from corpus_teacher.distributed.cluster import connect
from corpus_teacher.errors import OutputError, RemoteError

_GROUP_BYTES = 64 << 20  # of neighbouring files that one task reads
_RETRIES = 4  # of a task whose worker died
_BUILD_BYTES = 28  # of memory, per token of a shard
_BUILDING = "building"


class _Read(NamedTuple):
    """What reading some files found, but for the tokens."""

    ends: npt.NDArray[np.int64]
    names: list[tuple[str | None, Mapping[str, Any] | None]]
    num_tokens: int
    num_bytes: int
    num_inner_ends: int
    log: ReadLog


class _Corpus(NamedTuple):
    """A tokenised corpus in pieces: where they begin, and Ray's references to them."""

    pieces: list[Any]
    first_positions: npt.NDArray[np.int64]
    doc_starts: npt.NDArray[np.int64]
    names: Any
    num_bytes: int


class _Kept(NamedTuple):
    """What all shards are built with."""

    vocab_size: int
    end_of_document: int | None
    metadata: dict[str, Any]
    attachments: dict[str, bytes] | None
    workers: int
    layout: str


def build_index_on_ray(
    specs: list[str],
    out: str | Path,
    options: BuildOptions | None = None,
    *,
    address: str | None = None,
    progress: Progress = silent,
) -> BuildSummary:
    """Build an index as tasks of a Ray cluster; the index is that of `build_index_from_sources`.

    Parameters
    ----------
    specs : list of str
        See `find_sources`; on storage that all machines share.
    out : str or Path
        The folder of the index, on such storage as well; it appears when it is complete.
    options : BuildOptions, optional
        `workers` are the threads of each task that builds; `memory`, or half of what is free on this machine, decides
        on the size of shards where `shard_tokens` isn't given.
    address : str, optional
        Of the cluster: "local", "auto" or HOST:PORT; as of `RayIndex`.
    progress : callable, optional
        As of `build_index_from_sources`.

    Raises
    ------
    ConfigError, RemoteError
        Ray isn't installed, no cluster answers, or a task's worker died again and again.
    IndexExistsError, InputError, TokenizerError, CorpusError, OutputError, IndexWriteError
        As `build_index_from_sources`; nothing is left behind.
    """
    ray = connect(address)
    options = options or BuildOptions()
    clock, log, notes = StageClock(), ReadLog(), list[str]()
    out = Path(os.path.abspath(prepare_target(Path(out), force=options.force)))  # tasks have folders of their own
    inventory = find_sources(specs, kind=options.kind)
    if inventory.repeated:
        notes.append(f"{inventory.repeated} files were named more than once and are read once")
    tokenizer: Tokenizer | None
    if are_ready(inventory, options.read):
        tokenizer, ready, vocab_size, end = ready_corpus(inventory, out, options, clock, notes, progress)
        starts = ready.doc_starts
        shard_tokens = shard_tokens_of(options, vocab_size, ready.num_documents / len(ready.tokens))
        cuts = [first for first, _ in cut_documents(starts, shard_tokens)]
        first_positions = np.append(starts[cuts], len(ready.tokens))
        pieces = [ray.put(np.array(ready.tokens[lo:hi])) for lo, hi in pairwise(first_positions.tolist())]
        corpus = _Corpus(pieces, first_positions, starts, ready.names, ready.num_bytes)
    else:
        options = with_chat(options)
        tokenizer = tokenizer_for(inventory, options, clock, progress)
        with clock.stage("tokenize"):
            corpus = _tokenized(ray, inventory, options.read, tokenizer, log, out.parent, progress)
        vocab_size, end = tokenizer.vocab_size, tokenizer.end_of_document
        notes.extend(tokenizer_notes(tokenizer, options))
    notes.extend(log.sentences)
    metadata = index_metadata(tokenizer, specs, len(inventory.sources), corpus.num_bytes)
    if end is not None:
        metadata["end_of_document"] = end
    attachments = {TOKENIZER_FILE: tokenizer.to_bytes()} if tokenizer else None
    kept = _Kept(vocab_size, end, metadata, attachments, options.workers or 0, options.layout)
    with clock.stage("build"):
        shard_tokens = shard_tokens_of(options, vocab_size, (len(corpus.doc_starts) - 1) / int(corpus.doc_starts[-1]))
        _build(ray, corpus, out, shard_tokens, kept, progress, overwrite=options.force)
    with open_index(out) as index:
        return summary_of(index, corpus.num_bytes, inventory, tokenizer, log, clock, notes)


# reading and tokenising


def _tokenized(
    ray: Any,
    inventory: Inventory,
    options: ReadOptions,
    tokenizer: Tokenizer,
    log: ReadLog,
    folder: Path,
    progress: Progress,
) -> _Corpus:
    """The corpus, tokenised by tasks; `log` gets what they met."""
    task = ray.remote(_read).options(num_returns=2, max_retries=_RETRIES, num_cpus=1)
    shared = ray.put((options, tokenizer, os.getcwd()))
    asked = [task.remote(group, shared) for group in _groups(inventory.sources)]
    parts: list[_Read] = [None] * len(asked)  # type: ignore[list-item]
    done = num_tokens = 0
    for number, read in _as_they_come(ray, [facts for _, facts in asked], "a task that read and tokenised"):
        parts[number] = read
        done, num_tokens = done + 1, num_tokens + read.num_tokens
        progress("tokenize", done, len(asked), num_tokens)
    first_positions = np.cumsum([0, *(part.num_tokens for part in parts)]).astype(np.int64)
    ends = [part.ends + first for part, first in zip(parts, first_positions, strict=False)]
    starts = np.concatenate([np.zeros(1, np.int64), *ends])
    if starts[-1] != first_positions[-1]:  # the last document is open
        starts = np.append(starts, first_positions[-1])
    with NamesWriter(folder) as names:
        for part in parts:
            for name, fields in part.names:
                names.add(name or f"document {names.count + 1}", fields)
            log.add(part.log)
        num_bytes = sum(part.num_bytes for part in parts)
        check_text(num_bytes, starts.size - 1, sum(part.num_inner_ends for part in parts), log)
        return _Corpus([tokens for tokens, _ in asked], first_positions, starts, names.finish(), num_bytes)


def _groups(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Neighbouring files of some 64 MB together; a stream of unknown length is alone."""
    group: list[Source] = []
    size = 0
    for source in sources:
        more = _GROUP_BYTES if source.size_bytes is None else source.size_bytes
        if group and size + more > _GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(source)
        size += more
    if group:
        yield group


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """Work in the folder of the process that asks, where this machine has it: sources may be named from there."""
    before = os.getcwd()
    with contextlib.suppress(OSError):
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _read(sources: list[Source], shared: tuple[ReadOptions, Tokenizer, str]) -> tuple[npt.NDArray[Any], _Read]:
    """The task: the tokens of some files, and the rest of what was found."""
    options, tokenizer, folder = shared
    with _in_folder(folder):
        return _tokens_of(sources, options, tokenizer)


def _tokens_of(sources: list[Source], options: ReadOptions, tokenizer: Tokenizer) -> tuple[npt.NDArray[Any], _Read]:
    log = ReadLog()
    tokens: list[npt.NDArray[Any]] = [np.zeros(0, tokenizer.dtype)]
    ends = [np.zeros(0, np.int64)]
    names: list[tuple[str | None, Mapping[str, Any] | None]] = []
    num_tokens = num_bytes = num_inner_ends = 0
    for batch in encode_documents(Inventory(sources).documents(options, log), tokenizer, workers=1):
        tokens.append(batch.tokens)
        ends.append(np.asarray(batch.ends, np.int64) + num_tokens)
        names.extend((name_of(document), document.fields) for document in batch.documents)
        num_tokens += len(batch.tokens)
        num_bytes += batch.num_bytes
        num_inner_ends += batch.num_inner_ends
        log.specials.update(batch.specials)
    return np.concatenate(tokens), _Read(np.concatenate(ends), names, num_tokens, num_bytes, num_inner_ends, log)


# building


def _build(
    ray: Any, corpus: _Corpus, out: Path, shard_tokens: int, kept: _Kept, progress: Progress, *, overwrite: bool
) -> None:
    """Build the shards, or one index where the corpus fits."""
    num_documents, num_tokens = corpus.doc_starts.size - 1, int(corpus.doc_starts[-1])
    if num_tokens <= shard_tokens:
        with placed_folder(out, overwrite=overwrite) as folder:
            _built(ray, corpus, [(0, num_documents)], folder / _BUILDING, kept, progress)
            for file in (folder / _BUILDING / "0").iterdir():
                os.rename(file, folder / file.name)
            shutil.rmtree(folder / _BUILDING)
        return
    parts = cut_documents(corpus.doc_starts, shard_tokens)
    with shard_writer(out, overwrite=overwrite) as writer:
        building = writer.folder / _BUILDING
        _built(ray, corpus, parts, building, kept, progress)
        for number in range(len(parts)):
            writer.add(lambda path, built=building / str(number): _moved(built, path))  # type: ignore[misc]
        shutil.rmtree(building)
        facts = {"documents": num_documents, "tokens": num_tokens, "shards": len(parts)}
        writer.finish(kept.vocab_size, kept.metadata, [event("build", **facts)])


def _moved(built: Path, path: Path) -> CorpusIndex:
    os.rename(built, path)
    return CorpusIndex.open(path, check="never")


def _built(
    ray: Any, corpus: _Corpus, parts: Sequence[tuple[int, int]], folder: Path, kept: _Kept, progress: Progress
) -> None:
    """Build documents first … end − 1 of each part as folder/0, folder/1, …

    Raises
    ------
    OutputError
        A task wrote where this process doesn't see it.
    """
    folder.mkdir()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = max(int(node.get("CPU", 0)) for node in nodes)
    memory = max(int(node.get("memory", 0)) for node in nodes)
    all_cpus = sum(int(node.get("CPU", 0)) for node in nodes)
    threads = max(1, min(kept.workers or all_cpus // len(parts), cpus))
    shared, asked = ray.put(kept._replace(workers=threads)), []
    for number, (first, end) in enumerate(parts):
        starts = corpus.doc_starts[first : end + 1]
        size = int(starts[-1] - starts[0])
        task = ray.remote(_build_shard).options(
            max_retries=_RETRIES, num_cpus=min(threads, cpus), memory=min(memory, _BUILD_BYTES * size)
        )
        names = None if corpus.names is None else bytes(names_between(DocumentNames(corpus.names), first, end))
        pieces = list(_cut(corpus, int(starts[0]), int(starts[-1])))
        asked.append(task.remote(str(folder / str(number)), pieces, starts - starts[0], names, shared))
    for done, _ in enumerate(_as_they_come(ray, asked, "a task that built a shard"), 1):
        progress("build: shards", done, len(parts))
    for number in range(len(parts)):
        if not (folder / str(number)).is_dir():
            raise OutputError(
                f"a shard that was built in {folder.parent.parent} isn't here: the folder of the index must lie on "
                "storage that all machines of the cluster share"
            )


def _cut(corpus: _Corpus, begin: int, end: int) -> Iterator[tuple[Any, int, int]]:
    """The pieces that tokens begin … end − 1 lie in, and which of each."""
    for piece, (first, stop) in zip(corpus.pieces, pairwise(corpus.first_positions.tolist()), strict=True):
        lo, hi = max(begin, first), min(end, stop)
        if lo < hi:
            yield piece, lo - first, hi - first


def _build_shard(
    path: str,
    pieces: list[tuple[Any, int, int]],
    doc_starts: npt.NDArray[np.int64],
    names: bytes | None,
    kept: _Kept,
) -> None:
    """The task: build one shard; what a worker that died left is replaced."""
    import ray

    tokens = np.concatenate([ray.get(piece)[lo:hi] for piece, lo, hi in pieces])
    build_index(
        tokens,
        path,
        doc_starts=doc_starts,
        vocab_size=kept.vocab_size,
        end_of_document=kept.end_of_document,
        metadata=kept.metadata,
        attachments=kept.attachments,
        document_names=names,
        overwrite=True,
        workers=kept.workers,
        progress=False,
        layout=kept.layout,
    ).close()


def _as_they_come(ray: Any, asked: Sequence[Any], what: str) -> Iterator[tuple[int, Any]]:
    """Answers of tasks with their numbers, as they come; where one fails, the others are called off.

    Raises
    ------
    RemoteError
        Ray has given a task up.
    Exception
        That of a task.
    """
    numbers = {reference: number for number, reference in enumerate(asked)}
    waiting = list(asked)
    try:
        while waiting:
            [done], waiting = ray.wait(waiting, num_returns=1)
            try:
                answer = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise getattr(error, "cause", None) or error from None
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0].rstrip(".")
                raise RemoteError(
                    f"{what} was lost {_RETRIES + 1} times ({reason}): look at Ray's logs for what killed it, memory "
                    "above all"
                ) from error
            yield numbers[done], answer
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
