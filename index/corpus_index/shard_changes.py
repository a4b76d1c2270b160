"""What grows, shrinks, joins and converts the shards of an index: append, remove, merge, convert.

Each writes a new folder beside the old one, in which shards that stay are links to the same files, and exchanges the
two in one step: who has the index open keeps what he opened, a process that is killed leaves the old one, and of two
that change it at once the second is refused. A single index becomes the first shard.

Documents that are removed are gone at once, from every answer: a mask beside their shard says which they are, and the
shard answers as one that was built without them (`sharded.masked_shard`). Merging drops them for good.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from corpus_index import files
from corpus_index.build import Progress, build_index, build_part, check_build_memory, check_options, packed_names
from corpus_index.core.checks import as_array, check_index
from corpus_index.corpus import MAX_TOKENS, check_corpus, check_integer
from corpus_index.errors import CorpusError, IndexWriteError, QueryError
from corpus_index.index import CorpusIndex
from corpus_index.layouts import check_layout, write_layout
from corpus_index.manifest import as_folder
from corpus_index.memory import build_bytes, check_memory
from corpus_index.names import NAMES_FILE, DocumentNames, NamesWriter
from corpus_index.shard_manifest import refuse_inside
from corpus_index.sharded.masked_shard import MaskedShard
from corpus_index.sharded.masks import Mask, no_mask
from corpus_index.sharded.shard_writer import ShardWriter, cut_documents, event, shard_writer
from corpus_index.sharded.sharded_index import ShardedIndex, open_index
from corpus_index.store import placed_folder

_MOST_LOGGED = 10_000  # documents of one removal that the history names


class _Group(NamedTuple):
    """Documents that are to be one shard: of each shard those that stay, by the shard's own numbers."""

    shards: list[CorpusIndex]
    kept: list[np.ndarray]

    @property
    def num_tokens(self) -> int:
        return sum(
            int(np.diff(shard.doc_starts)[kept].sum()) for shard, kept in zip(self.shards, self.kept, strict=True)
        )

    @property
    def is_a_shard(self) -> bool:
        """Whether it is one of the old ones, none of whose documents was removed."""
        return len(self.shards) == 1 and not isinstance(self.shards[0], MaskedShard)


def shards_of(index: CorpusIndex) -> list[CorpusIndex]:
    """The shards of an index; one that has none is its own."""
    return index.shards if isinstance(index, ShardedIndex) else [index]


def append_documents(
    path: str | os.PathLike[str],
    tokens: np.ndarray,
    *,
    doc_starts: np.ndarray | None = None,
    document_names: Sequence[str] | bytes | mmap.mmap | None = None,
    metadata: Mapping[str, Any] | None = None,
    shard_tokens: int = MAX_TOKENS,
    workers: int | None = None,
    progress: Progress | None = None,
    memory: int | None = None,
    fingerprint: str | None = None,
) -> CorpusIndex:
    """Add documents to an index as a shard, or as several.

    Parameters
    ----------
    path : path
        An index of either kind.
    tokens : ndarray of shape (N,), any integer type
        Ids below the index's V; memory maps are welcome.
    doc_starts, document_names, workers, progress, memory
        As in `build_index`. An index whose documents have names wants names.
    metadata : mapping, optional
        What is new in the index's metadata.
    shard_tokens : int
        Of a shard at most.
    fingerprint : str, optional
        Of the index that the documents were chosen for; any other is refused.

    Returns
    -------
    ShardedIndex
        The new one, opened.

    Raises
    ------
    CorpusError
        If an id or a document start is out of range.
    InsufficientMemoryError
        If the build of the largest new shard needs more memory than there is.
    IndexFormatError
        If there is no index.
    IndexWriteError
        If it can't be written, or another process changes it, or has changed it.

    Notes
    -----
    The cost is that of building the new shards; old ones are linked.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> path = tempfile.mkdtemp() + "/index"
    >>> build_index(np.array([1, 2, 1, 2, 3]), path).close()
    >>> with append_documents(path, np.array([3, 1, 2])) as index:
    ...     len(index.shards), index.count([1, 2])
    (2, 3)
    """
    _check_options(workers, memory, progress, shard_tokens=shard_tokens)
    check_options(metadata=metadata)
    path = as_folder(path)
    with _changed(path, fingerprint) as (old, writer_of):
        corpus = check_corpus(tokens, doc_starts, old.vocab_size, old.end_of_document, most=None)
        names = packed_names(document_names, corpus.doc_starts.size - 1)
        if names is None and old.document_names is not None:
            raise CorpusError("the documents of the index have names: give each new document a name")
        if names is not None and old.document_names is None:
            raise CorpusError("the documents of the index have no names: give new ones none either (document_names)")
        check_build_memory(corpus, shard_tokens, workers=workers or 1, memory=memory)
        parts = cut_documents(corpus.doc_starts, shard_tokens)
        with writer_of() as writer:
            for shard in shards_of(old):
                writer.link(shard)
            for first, end in parts:
                writer.add(
                    partial(
                        build_part,
                        corpus,
                        first,
                        end,
                        names=names,
                        workers=workers,
                        progress=progress or False,
                        memory=memory,
                        **_kept(old),
                    )
                )
            facts = {"documents": corpus.doc_starts.size - 1, "tokens": corpus.tokens.size, "shards": len(parts)}
            _finish(writer, old, event("append", **facts), metadata)
    return open_index(path)


def remove_documents(
    path: str | os.PathLike[str],
    documents: Sequence[int],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    memory: int | None = None,
    fingerprint: str | None = None,
) -> CorpusIndex:
    """Take documents out of an index: out of counts, types, positions, targets, as if they had never been in it.

    Parameters
    ----------
    path : path
    documents : sequence of int
        Their numbers; later documents get smaller numbers afterwards, names stay.
    workers, progress, memory
        As in `build_index`.
    fingerprint : str, optional
        Of the index that the documents were chosen for; any other is refused.

    Returns
    -------
    ShardedIndex
        The new one, opened.

    Raises
    ------
    QueryError
        If there is no such document.
    CorpusError
        If nothing would be left.
    InsufficientMemoryError
        If shards have to be joined, and that needs more memory than there is.
    IndexFormatError, IndexWriteError
        As of `append_documents`.

    Notes
    -----
    All shards are linked, and masks beside them say what is removed: a step a token of the removed documents. Answers
    are those of an index that was built without them; they take somewhat longer until `merge_shards` drops the
    documents for good. Where documents without tokens are all that is left of a shard, it is joined with its neighbour.
    The history says which documents went, and when.
    """
    _check_options(workers, memory, progress)
    numbers = np.unique(_numbers(documents))
    path = as_folder(path)
    with _changed(path, fingerprint) as (old, writer_of):
        if numbers.size == 0:
            raise QueryError("there is no document to remove: name at least one")
        if numbers[0] < 0 or numbers[-1] >= old.num_documents:
            bad = int(numbers[0] if numbers[0] < 0 else numbers[-1])
            raise QueryError(f"there is no document {bad:,}: documents are 0 .. {old.num_documents - 1:,}")
        groups, first = [], 0
        for shard in shards_of(old):
            mine = numbers[(numbers >= first) & (numbers < first + shard.num_documents)] - first
            groups.append(_Group([shard], [np.setdiff1d(np.arange(shard.num_documents), mine)]))
            first += shard.num_documents
        named = [{"number": n, "name": old.document(n).name} for n in numbers[:_MOST_LOGGED].tolist()]
        lost = int(np.diff(old.doc_starts)[numbers].sum())
        facts = {"documents": numbers.size, "tokens": lost, "removed": named}
        groups = _with_tokens(groups, path)
        joined = [group for group in groups if len(group.shards) > 1]
        _check_memory(joined, workers, memory, "no document can be left where it is: use a machine with more")
        with writer_of() as writer:
            for group in groups:
                if len(group.shards) == 1:
                    writer.link(group.shards[0], _mask_of(group))
                else:
                    kept = _kept(old)
                    build = partial(_build_group, group, kept=kept, workers=workers, progress=progress, memory=memory)
                    writer.add(build)
            _finish(writer, old, event("remove", **facts), None)
    return open_index(path)


def merge_shards(
    path: str | os.PathLike[str],
    *,
    shard_tokens: int = MAX_TOKENS,
    workers: int | None = None,
    progress: Progress | None = None,
    memory: int | None = None,
) -> CorpusIndex:
    """Join neighbouring shards into fewer, larger ones, in the order of the documents.

    Parameters
    ----------
    path : path
    shard_tokens : int
        Of a new shard at most.
    workers, progress, memory
        As in `build_index`.

    Returns
    -------
    CorpusIndex
        The new one, opened; nothing is written where no two neighbours fit together and no document was removed. Where
        one shard is left, it is a single index again, as fast as any, whose metadata hold the history.

    Raises
    ------
    InsufficientMemoryError
        If the largest new shard needs more memory than there is.
    IndexFormatError, IndexWriteError
        As of `append_documents`.

    Notes
    -----
    Shards that are joined, or from which documents were removed, are built anew from their texts, one at a time, in the
    memory of one build.
    """
    _check_options(workers, memory, progress, shard_tokens=shard_tokens)
    path = as_folder(path)
    with _changed(path) as (old, writer_of):
        groups: list[_Group] = []
        for shard in shards_of(old):
            everything = np.arange(shard.num_documents)
            if groups and sum(one.num_tokens for one in (*groups[-1].shards, shard)) <= shard_tokens:
                groups[-1] = _Group([*groups[-1].shards, shard], [*groups[-1].kept, everything])
            else:
                groups.append(_Group([shard], [everything]))
        _check_memory(groups, workers, memory, "join fewer of them (a smaller shard_tokens)")
        if len(groups) == 1 and isinstance(old, ShardedIndex):
            what = event("merge", shards=1, before=len(old.shards))
            _write_single(path, groups[0], old, [*old.history, what], workers, progress, memory)
        elif not all(group.is_a_shard for group in groups):
            facts = {"shards": len(groups), "before": len(shards_of(old))}
            with writer_of() as writer:
                _write_groups(writer, groups, old, workers, progress, memory)
                _finish(writer, old, event("merge", **facts), None)
    return open_index(path)


def convert_index(
    path: str | os.PathLike[str],
    layout: str,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> CorpusIndex:
    """Write an index in another layout, without its source text: smaller, or faster to ask.

    Parameters
    ----------
    path : path
        Of either kind; of shards each is converted.
    layout : {"full", "compact"}
        "compact" takes about 4 bytes a token on disk where "full" takes 11 to 13; matches take two to four times as
        long, targets up to half as long again, text and positions much longer. Both answer alike.
    out : path, optional
        The folder to make; default: the new index takes the old one's place.
    overwrite : bool
        Replace an index that stands at out.
    workers : int, optional
        Threads; default: the processors that this process may use.

    Returns
    -------
    CorpusIndex
        The new one, opened; the old one where it has the layout already and no other folder is asked for.

    Raises
    ------
    QueryError
        If there is no such layout.
    IndexFormatError, IndexExistsError, IndexWriteError
        As of `build_index`, and where another process changes the index.

    Notes
    -----
    O(N) time; `layouts.write_layout` says how much memory, for one shard at a time.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> path = tempfile.mkdtemp() + "/index"
    >>> build_index(np.array([1, 2, 1, 2, 3]), path).close()
    >>> with convert_index(path, "compact") as index:
    ...     index.layout, index.count([1, 2]), index.tokens[1:4].tolist()
    ('compact', 2, [2, 1, 2])
    """
    check_layout(layout)
    source = as_folder(path)
    if out is not None:
        target = as_folder(out)
        with open_index(source) as old:
            _write_converted(old, target, layout, None, workers, overwrite=overwrite)
        return open_index(target)
    with _turn(source), open_index(source) as old:
        if any(shard.layout != layout for shard in shards_of(old)):
            _write_converted(old, source, layout, old.fingerprint, workers, overwrite=True)
    return open_index(source)


def _write_converted(
    old: CorpusIndex, path: Path, layout: str, instead_of: str | None, workers: int | None, *, overwrite: bool
) -> None:
    if not isinstance(old, ShardedIndex):
        write_layout(old, path, layout, overwrite=overwrite, instead_of=instead_of, workers=workers)
        return
    with shard_writer(path, overwrite=overwrite, instead_of=instead_of) as writer:
        for shard in old.shards:
            if shard.layout == layout:
                writer.link(shard)
            else:
                whole, mask = shard, None
                if isinstance(shard, MaskedShard):
                    whole, mask = shard.whole, shard.mask  # of ranks, which stay what they are
                writer.add(partial(_converted, whole, layout=layout, workers=workers), mask)
        facts = {"layout": layout, "shards": len(old.shards)}
        _finish(writer, old, event("convert", **facts), None)


def _converted(shard: CorpusIndex, path: Path, *, layout: str, workers: int | None) -> CorpusIndex:
    write_layout(shard, path, layout, workers=workers)
    return CorpusIndex.open(path, check="never")


def find_documents(index: CorpusIndex, names: Sequence[str]) -> np.ndarray:
    """The numbers of documents by their names, ascending: all that bear a name.

    Raises
    ------
    QueryError
        If a name is no document's, or the documents have none.

    Notes
    -----
    One pass over all names.
    """
    check_index(index)
    if isinstance(names, (str, bytes)) or not all(isinstance(name, str) for name in as_array(names, "names").flat):
        raise QueryError(f"names {names!r} must be a list of names")
    known = index.document_names
    if known is None:
        raise QueryError(f"the documents of {index.path} have no names: give their numbers")
    wanted, found = set(names), set[str]()
    numbers = []
    for number, document in enumerate(known):
        if document.name in wanted:
            numbers.append(number)
            found.add(document.name)
    if wanted - found:
        raise QueryError(f"no document of {index.path} is called {sorted(wanted - found)[0]!r}")
    return np.array(numbers, np.int64)


@contextlib.contextmanager
def _changed(
    path: str | os.PathLike[str], fingerprint: str | None = None
) -> Iterator[tuple[CorpusIndex, Callable[[], contextlib.AbstractContextManager[ShardWriter]]]]:
    """The index at path, opened, held against other writers; and what opens a writer that takes its place."""
    target = as_folder(path)
    with _turn(target), open_index(target) as old:
        if fingerprint not in (None, old.fingerprint):
            raise IndexWriteError(f"{path} was changed by another process since it was read: do it again")
        yield old, lambda: shard_writer(target, overwrite=True, instead_of=old.fingerprint)


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Hold the right to change an index; others are refused."""
    refuse_inside(path)
    try:
        lock = files.lock_file(path.with_name(f".{path.name}.changing"), str(os.getpid()).encode())
    except OSError as error:
        if error.errno in files.NO_LOCKS:
            yield  # a file system without locks: the exchange looks whether it is the index that was opened
            return
        raise IndexWriteError(f"{path} can't be changed ({error.strerror or error}): may you write there?") from error
    if lock is None:
        raise IndexWriteError(f"{path} is being changed by another process: try again when that has ended")
    with lock:
        yield


def _check_options(workers: object, memory: object, progress: object, *, shard_tokens: object = MAX_TOKENS) -> None:
    """Refuse options of another type, or that no build can keep."""
    for name, value, none in (
        ("workers", workers, True),
        ("memory", memory, True),
        ("shard_tokens", shard_tokens, False),
    ):
        check_integer(value, name, none=none)
        if value is not None and value < 1:  # type: ignore[operator]
            raise CorpusError(f"{name} {value} must be at least 1")
    check_options(progress=progress)


def _numbers(documents: Sequence[int]) -> np.ndarray:
    """Numbers of documents: shape (n,), int64."""
    numbers = as_array(documents, "documents")
    if numbers.size == 0:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "ui" or int(numbers.max()) >= 2**63:
        raise QueryError(f"documents {documents!r} must be a list of numbers of documents")
    return numbers.astype(np.int64)


def _kept(index: CorpusIndex) -> dict[str, Any]:
    """What a new shard has in common with the others."""
    first = shards_of(index)[0]
    attachments = {name: first.attachment(name) for name in first.attachment_names if name != NAMES_FILE}
    return {"metadata": _without_history(first.metadata), "attachments": attachments, "layout": first.layout}


def _write_single(
    path: Path,
    group: _Group,
    old: CorpusIndex,
    history: list[dict[str, Any]],
    workers: int | None,
    progress: Progress | None,
    memory: int | None,
) -> None:
    """Write a single index in the place of shards."""
    kept = _kept(old)
    kept["metadata"] = {**old.metadata, "history": history}
    with placed_folder(path, overwrite=True, instead_of=old.fingerprint) as folder:
        _build_group(group, folder / "new", kept=kept, workers=workers, progress=progress, memory=memory).close()
        for entry in list(os.scandir(folder / "new")):
            os.rename(entry.path, folder / entry.name)
        os.rmdir(folder / "new")


def history_of(index: CorpusIndex) -> list[dict[str, Any]]:
    """What was done to an index, and when; of one that was only built, nothing."""
    return list(index.history if isinstance(index, ShardedIndex) else index.metadata.get("history", []))


def _finish(writer: ShardWriter, old: CorpusIndex, what: dict[str, Any], metadata: Mapping[str, Any] | None) -> None:
    history = history_of(old)
    if not history:
        created = old.metadata.get("created")
        history = [{"what": "build", "when": created, "documents": old.num_documents, "tokens": old.num_tokens}]
    writer.finish(old.vocab_size, _without_history({**old.metadata, **(metadata or {})}), [*history, what])


def _without_history(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key != "history"}


def _with_tokens(groups: list[_Group], path: str | os.PathLike[str]) -> list[_Group]:
    """Groups that all hold a token: documents without any go with their neighbours."""
    made: list[_Group] = []
    waiting = _Group([], [])
    for group in groups:
        joined = _Group([*waiting.shards, *group.shards], [*waiting.kept, *group.kept])
        waiting = _Group([], [])
        if joined.num_tokens > 0:
            made.append(joined)
        elif sum(kept.size for kept in joined.kept) > 0:
            waiting = joined
    if not made:
        raise CorpusError(f"nothing of {path} would be left: remove its folder instead")
    if waiting.shards:
        made[-1] = _Group([*made[-1].shards, *waiting.shards], [*made[-1].kept, *waiting.kept])
    return made


def _mask_of(group: _Group) -> Mask | None:
    """What is removed from a group's one shard, what was removed before included; None: nothing new."""
    [shard], [kept] = group
    gone = np.setdiff1d(np.arange(shard.num_documents), kept)
    if gone.size == 0:
        return None
    if isinstance(shard, MaskedShard):
        return shard.mask.and_documents(shard.whole, np.array(shard.among_all_documents(gone), np.int64))
    return no_mask().and_documents(shard, gone)


def _check_memory(groups: list[_Group], workers: int | None, memory: int | None, way_out: str) -> None:
    """Refuse what needs too much memory, the text of a shard that is joined included, which is held twice."""
    for group in groups:
        if not group.is_a_shard:
            count, first = group.num_tokens, group.shards[0]
            documents = sum(kept.size for kept in group.kept)
            needed = 2 * count * (2 if first.vocab_size <= 2**16 else 4) + build_bytes(
                count, documents, first.vocab_size, workers or 1
            )
            what = f"the build of a shard of {count:,} tokens"
            check_memory(needed, what, f"{way_out}, or give `memory` if there is more", memory)


def _write_groups(
    writer: ShardWriter,
    groups: list[_Group],
    old: CorpusIndex,
    workers: int | None,
    progress: Progress | None,
    memory: int | None,
) -> None:
    for group in groups:
        if group.is_a_shard:
            writer.link(group.shards[0])
        else:
            build = partial(_build_group, group, kept=_kept(old), workers=workers, progress=progress, memory=memory)
            writer.add(build)


def _build_group(
    group: _Group,
    path: Path,
    *,
    kept: dict[str, Any],
    workers: int | None,
    progress: Progress | None,
    memory: int | None,
) -> CorpusIndex:
    """Build one shard of the texts of several."""
    parts, sizes = [], [np.zeros(1, np.int64)]
    named = all(shard.document_names is not None for shard in group.shards)
    with NamesWriter() if named else contextlib.nullcontext() as names:
        for shard, documents in zip(group.shards, group.kept, strict=True):
            lengths = np.diff(shard.doc_starts)
            sizes.append(lengths[documents])
            stays = np.zeros(shard.num_documents, np.bool_)
            stays[documents] = True
            parts.append(np.asarray(shard.tokens)[np.repeat(stays, lengths)])
            known: DocumentNames | None = shard.document_names
            if names is not None and known is not None:
                for number in documents.tolist():
                    names.add(*known[number])
        return build_index(
            np.concatenate(parts),
            path,
            doc_starts=np.cumsum(np.concatenate(sizes)),
            vocab_size=group.shards[0].vocab_size,
            end_of_document=group.shards[0].end_of_document,
            document_names=None if names is None else names.finish(),
            workers=workers,
            progress=progress or False,
            memory=memory,
            **kept,
        )
