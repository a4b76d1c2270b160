"""Sources: what the user names (files, folders, globs, data sets) → a sorted list of things to read.

Naming decides: the kind of a file follows from its suffix, a folder is walked in sorted order and says what
it left out, a saved data set is known by the files that `datasets` writes, and `hf:` asks the `datasets`
library. The order of the list, and so of the corpus, depends on the names only.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corpus_teacher.data.documents import Document, ReadLog
from corpus_teacher.data.file_kinds import (
    Kind,
    beside_tokens,
    holds_lines,
    is_saved_dataset,
    kind_of_file,
    says_its_tokens,
    special_file,
)
from corpus_teacher.data.hf_datasets import load_hub, load_saved, read_rows
from corpus_teacher.data.readers import ReadOptions, read_json_lines, read_parquet, read_text
from corpus_teacher.data.records import document_of
from corpus_teacher.data.shard_readers import SHARD_READERS
from corpus_teacher.data.shards import INDEX_FILE, shard_folder
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place, UrlPath, place_of, url_of

_SKIPPED_FOLDERS = frozenset(["__pycache__", "node_modules"])
_READERS: dict[str, Callable[[Place, ReadOptions, ReadLog], Iterator[Document]]] = {
    "text": read_text,
    "jsonl": read_json_lines,
    "parquet": read_parquet,
}


@dataclass(frozen=True)
class Source:
    """One thing to read.

    Parameters
    ----------
    kind : str
        "text", "jsonl", "parquet", "dataset" (saved by the datasets library), "hub" (`hf:`), "tokens" (flat), or
        shards of samples: "mds", "litdata", "webdataset".
    name : str
        The path, or what follows `hf:`.
    size_bytes : int, optional
        On disk; None where it is unknown.
    """

    kind: Kind
    name: str
    size_bytes: int | None = None

    def documents(self, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
        """Read it, from its beginning; `log.done` advances by `size_bytes` in all.

        Raises
        ------
        InputError
            At the first thing that is broken, unless `options.errors` lets it pass.
        """
        log.unpack_ratio = options.unpack_ratio
        if self.kind in _READERS:
            yield from _READERS[self.kind](place_of(self.name), options, log)
        elif self.kind in SHARD_READERS:
            begin = log.done
            for place, record in SHARD_READERS[self.kind](place_of(self.name), options.fields, log):
                yield from document_of(record, place, options, log)
            log.done = begin + (self.size_bytes or 0)
        elif self.kind == "tokens":
            raise InputError(f"{self.name} holds tokens, not text, and can't be tokenised again")
        else:
            begin = log.done
            load = load_saved if self.kind == "dataset" else load_hub
            rows = load(self.name, options, log)
            num_rows = len(rows) if self.kind == "dataset" else 0
            for number, document in enumerate(read_rows(rows, self.name, options, log), start=1):
                if num_rows:
                    log.done = begin + (self.size_bytes or 0) * number / num_rows
                yield document


@dataclass
class Inventory:
    """What is read, in order, and what a folder or a glob left out.

    Attributes
    ----------
    sources : list of Source
    skipped : Counter of str
        How many files were left out, by suffix ("no suffix" among them).
    repeated : int
        Files that were named more than once; they are read once.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    @property
    def size_bytes(self) -> int | None:
        """Bytes on disk of all sources, or None if one of them is a stream of unknown length."""
        sizes = [source.size_bytes for source in self.sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def documents(self, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
        """All documents of all sources, in order."""
        for source in self.sources:
            yield from source.documents(options, log)


def find_sources(specs: list[str], *, kind: Kind | None = None) -> Inventory:
    """Everything that the user named.

    Parameters
    ----------
    specs : list of str
        Files, folders, globs, folders of saved data sets, `hf:name[:config[:split]]`.
    kind : str, optional
        What files of an unknown suffix hold: "text", "jsonl", "parquet" or "tokens".

    Raises
    ------
    InputError
        If one is missing, of an unknown kind, or a folder or glob holds nothing to read.
    """
    if not specs:
        raise InputError("there is no source: name a file, a folder, a glob or a data set")
    inventory = Inventory()
    seen: set[str] = set()
    for spec in specs:
        before, repeated = len(inventory.sources), inventory.repeated
        for source in _expand(spec, kind, inventory.skipped):
            key = source.name if source.kind == "hub" or url_of(source.name) else os.path.realpath(source.name)
            if key in seen:
                inventory.repeated += 1
                continue
            seen.add(key)
            inventory.sources.append(source)
        if len(inventory.sources) == before and inventory.repeated == repeated:
            left_out = ", ".join(f"{count} {suffix}" for suffix, count in inventory.skipped.most_common(5))
            raise InputError(
                f"{spec} holds nothing that can be read (text, .jsonl, .parquet, plain or packed as .gz or "
                ".zst; .tar, shards of MDS or litdata, tokens that say so)"
                + (f"; left out: {left_out}" if left_out else "")
            )
    return inventory


def _expand(spec: str, kind: Kind | None, skipped: Counter[str]) -> Iterator[Source]:
    """The sources behind one name, sorted."""
    if spec.startswith("hf:") and not spec.startswith("hf://"):
        yield Source("hub", spec.removeprefix("hf:"))
        return
    path = place_of(spec)
    if isinstance(path, Path):
        path = path.expanduser()
    if path.is_dir():
        yield from _folder(path, skipped, kind)
    elif path.exists():
        yield _file(path, kind)
    elif glob.has_magic(spec):
        matches = _matches(path)
        if not matches:
            raise InputError(f"no file matches {spec}")
        for match in matches:
            if match.is_dir():
                yield from _folder(match, skipped, kind)
            elif beside_tokens(match) and match.suffix != ".idx":  # which names its pair
                continue
            elif kind is not None or kind_of_file(match) is not None:
                yield _file(match, kind)
            else:
                skipped[match.suffix or "no suffix"] += 1
    elif _is_pair(path):
        yield _file(path.with_suffix(".bin"), None)  # Megatron names the pair without a suffix
    else:
        raise InputError(f"there is no file or folder {spec}")


def _matches(path: Place) -> list[Place]:
    """What a glob finds, sorted."""
    if isinstance(path, UrlPath):
        return list(path.glob())
    return [Path(one) for one in sorted(glob.glob(str(path), recursive=True))]


def _is_pair(path: Place) -> bool:
    return bool(path.name) and path.with_suffix(".idx").is_file() and path.with_suffix(".bin").is_file()


def _file(path: Place, kind: Kind | None) -> Source:
    special = special_file(path)
    if special is not None:
        raise InputError(f"{path} is {special}, not a file; save what it yields to a file first, and name that one")
    found = kind_of_file(path) or kind
    if found is None:
        raise InputError(
            f"{path}: the suffix {path.suffix!r} says nothing about what the file holds; set the format to text, "
            "jsonl, parquet or tokens"
        )
    if found == "tokens" and path.suffix == ".idx":
        path = path.with_suffix(".bin")
    if found == "tokens" and _is_chunk(path):
        found = "litdata"
    if isinstance(path, Path) and not os.access(path, os.R_OK):
        raise InputError(f"{path} can't be read: " + ("permission denied" if path.exists() else "no such file"))
    return Source(found, str(path), path.stat().st_size)


def _is_chunk(path: Place) -> bool:
    """Whether a file is a chunk of litdata: it stands in the index.json beside it."""
    if path.suffix != ".bin" or path.with_suffix(".idx").is_file():
        return False
    shards = shard_folder(path.parent)
    return shards is not None and shards.kind == "litdata" and path in shards.paths


def _walk(path: Place) -> Iterator[tuple[Place, list[str], list[str]]]:
    """Folders below a folder, top first, each with the names of its folders, which may be changed, and of its files."""
    if isinstance(path, UrlPath):
        yield from path.walk()
        return
    for folder, folders, files in os.walk(path):
        yield Path(folder), folders, files


def _folder(path: Place, skipped: Counter[str], wanted: Kind | None = None) -> Iterator[Source]:
    """A saved data set, or all text, JSON lines and Parquet below a folder; hidden things are passed over.

    A folder of MDS or litdata is known by its index.json. A folder that has none of these gives its tar archives, and
    its files of tokens where they say themselves that they are such, or the user does; else these are left out.
    """
    if is_saved_dataset(path):
        yield Source("dataset", str(path), _size_below(path))
        return
    later: list[Place] = []
    found = False
    for here, folders, files in _walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        shards = shard_folder(here) if INDEX_FILE in files else None
        if shards is not None:
            found = True
            yield from (Source(shards.kind, str(one), one.stat().st_size) for one in shards.paths)
            folders.clear()
            continue
        for name in list(folders):
            if is_saved_dataset(here / name):
                folders.remove(name)
                found = True
                yield Source("dataset", str(here / name), _size_below(here / name))
        for name in sorted(files):
            file = here / name
            kind = kind_of_file(file)
            if name.startswith("."):
                skipped["hidden"] += 1
            elif kind in ("tokens", *SHARD_READERS) and _is_file(file):
                later.append(file)
            elif wanted == "tokens" or kind is None or not _is_file(file) or not holds_lines(file):
                if not beside_tokens(file):
                    skipped[file.suffix or "no suffix"] += 1
            else:
                found = True
                yield _file(file, None)
    for file in later:
        clear = wanted == "tokens" or kind_of_file(file) in SHARD_READERS or says_its_tokens(file)
        if not found and clear and not beside_tokens(file):
            yield _file(file, None)
        elif found or not beside_tokens(file):
            skipped[file.suffix] += 1


def _is_file(path: Place) -> bool:
    """Whether a name in a folder is a file's: no pipe, no link that leads nowhere."""
    return isinstance(path, UrlPath) or path.is_file()


def _size_below(path: Place) -> int:
    assert isinstance(path, Path)
    return sum(file.stat().st_size for file in path.rglob("*.arrow"))
