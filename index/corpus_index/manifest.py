"""What an index says of itself: its manifest, read by a schema, so that what opens has fields and files that fit.

A seal (a hash) tells damage; it doesn't tell lies, since anyone can compute it. So every field is checked for its
type and range, every array for the type and shape that the others imply, and no name leaves the folder. What the
numbers in the arrays say is `verify`'s to check.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corpus_index.errors import IndexFormatError

FORMAT = "corpus-index"
VERSION = 4  # of compact indexes; 3 of those that name their documents, 2 with `deepest`, others are of version 1
DEEPEST = 65_534  # build counts shared symbols up to 65,535
MANIFEST = "manifest.json"
RANKS_FILE = ".document-ranks"
"""In the folder of a large index from the first time on that documents are left out: the sorted ranks of each."""
LOSSES_FILE = ".document-losses"
"""The same, where estimators count left extensions: from which depth on each rank's document takes one."""
DERIVED_FILES = (
    RANKS_FILE,
    LOSSES_FILE,
    *(f".{name}.partial" for name in (RANKS_FILE, LOSSES_FILE)),
    ".position-ranks",  # of earlier versions
    "..position-ranks.partial",
)
"""What is in a folder beside the files that the manifest names, and is made again where it is missing."""

HOT_ARRAYS = (
    "list_high",
    "list_low",
    "list_ones",
    "list_zeros",
    "next_tokens",
    "common",
    "minima",
    "near",
    "far",
    "occurrence_directory",
    "symbols",
    "row_bounds",
    "row_counts",
    "row_directory",
    "row_offsets",
    "row_tokens",
)
"""What targets read at every position, each in a file of its own. The other arrays are read where a match breaks, at
the ends of documents, and for places and texts."""

SUMMED_BYTES = 1 << 26
"""Bytes of a file to a CRC-32 in the manifest."""

BLOCK = 64  # ranks, or blocks of them, to a minimum of the level above

_MOST_BYTES = 1 << 28
_DEEPEST_NESTING = 100
_AGAIN = "build the index again"
_ARRAY_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}").fullmatch
_NUMBER_TYPE = re.compile(r"\|[ui]1|<[ui][248]|<f[48]").fullmatch
_HEX = re.compile("[0-9a-f]*").fullmatch

_NUMBERS: dict[str, tuple[int, int]] = {
    "num_tokens": (1, 2**32 - 2),
    "num_documents": (1, 2**48),
    "num_starts": (1, 2**32 - 2),
    "vocab_size": (1, 2**31),
    "num_symbols": (1, 2**31),
    "document_shift": (0, 32),
    "row_shift": (0, 32),
    "light": (1, 2**40),
    "deepest": (0, DEEPEST),
    "sample_shift": (0, 31),
}
_OPTIONAL = {"deepest": DEEPEST, "sample_shift": 0}
LAYOUTS = ("full", "compact")
"""What an index stores: all that is looked up, or what the rest is found from."""
_Free = int | None


def seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a manifest's canonical JSON, its own `fingerprint` left out."""
    content = {key: value for key, value in manifest.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def version_of(fields: Mapping[str, Any]) -> int:
    """The least format version that a manifest's fields need."""
    if "layout" in fields:
        return VERSION
    return 3 if "document_names" in fields else 2 if "deepest" in fields else 1


def levels_of(num_tokens: int) -> np.ndarray:
    """Where each level of block minima begins in `minima`, and the end: int64."""
    starts, size = [0], num_tokens
    while len(starts) == 1 or size > BLOCK:
        size = -(-size // BLOCK)
        starts.append(starts[-1] + size)
    return np.array(starts, np.int64)


def file_names(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """File name and entry of everything that a manifest names."""
    for name, entry in manifest["arrays"].items():
        yield f"{name}.bin", entry
    yield from manifest["attachments"].items()


def is_plain_name(name: Any) -> bool:
    """Whether a name is that of a file in the folder itself, and may be an attachment's."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..", MANIFEST)
        and not name.endswith(".bin")
        and not re.search(r"[/\\\0]", name)
    )


def as_folder(path: object, what: str = "an index: give the folder that `index build` wrote") -> Path:
    """A path of an index, or of what else is said, absolute.

    Raises
    ------
    IndexFormatError
        It can't be a path: a number, or a text that no file system can hold.
    """
    try:
        whole = os.path.abspath(path)  # type: ignore[call-overload]
        if b"\0" not in os.fsencode(whole):
            return Path(os.fsdecode(whole))
    except (TypeError, ValueError):
        pass
    raise IndexFormatError(f"{path!r} can't be the path of {what}")


def open_regular(path: str | os.PathLike[str], folder: int | None = None) -> int:
    """A descriptor of a file to read; a pipe, a device or a folder is refused without waiting for it.

    Raises
    ------
    OSError
    """
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    descriptor = os.open(path, os.O_RDONLY | sum(flags), dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "it is not a regular file", os.fspath(path))
    return descriptor


def read_json(path: str | os.PathLike[str], folder: int | None = None) -> Any:
    """The JSON of a regular file of at most 256 MiB, nested at most 100 deep, no key twice in one object.

    Raises
    ------
    OSError, ValueError
    """
    with os.fdopen(open_regular(path, folder), "rb") as file:
        size = os.fstat(file.fileno()).st_size  # as many bytes are asked for as there are: the buffer is made for them
        content = file.read(min(size, _MOST_BYTES) + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    try:
        value = json.loads(content, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level: list[Any] = [value]
    for _ in range(_DEEPEST_NESTING):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return value
    raise ValueError(f"it is nested more than {_DEEPEST_NESTING} deep")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return made


def load_manifest(path: Path, folder: int | None) -> dict[str, Any]:
    """The manifest in an open folder, checked.

    Parameters
    ----------
    path : Path
        Of the folder, for messages.
    folder : int or None
        Descriptor of the folder; None: it is found by its path.

    Raises
    ------
    FileNotFoundError
        There is none.
    IndexFormatError
        It is damaged, of another program or a newer version, or a field is wrong.
    """
    where = path / MANIFEST
    try:
        manifest = read_json(where if folder is None else MANIFEST, folder)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise IndexFormatError(f"{where} can't be read ({reason}): {_AGAIN}") from error
    if isinstance(manifest, dict) and manifest.get("format") == f"{FORMAT}-shards":
        raise IndexFormatError(f"{path} holds the shards of an index: open it with open_index, which opens either kind")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise IndexFormatError(f"{where} describes no {FORMAT}: give the folder that `index build` wrote")
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise IndexFormatError(
            f"{path} has format version {version}, this program reads up to {VERSION}: "
            f"upgrade corpus-teacher, or {_AGAIN}"
        )
    if manifest.get("fingerprint") != seal(manifest):
        raise IndexFormatError(f"{where} was changed after it was written: {_AGAIN}")
    check_manifest(manifest, where)
    return manifest


def check_manifest(manifest: Mapping[str, Any], where: Path) -> None:
    """Check the types and ranges of all fields, and that the arrays are of the types and shapes that these imply.

    Raises
    ------
    IndexFormatError
        Naming the first field that is wrong.
    """

    def fail(field: str, what: str) -> IndexFormatError:
        return IndexFormatError(f"{where} is wrong in {field!r}: {what}; {_AGAIN}")

    numbers: dict[str, int] = {}
    for name, (least, most) in _NUMBERS.items():
        value = manifest.get(name, _OPTIONAL.get(name))
        if type(value) is not int or not least <= value <= most:
            raise fail(name, f"{_shown(value)} is not an integer in {least:,} .. {most:,}")
        numbers[name] = value
    if numbers["num_starts"] > min(numbers["num_documents"], numbers["num_tokens"]):
        raise fail("num_starts", f"{numbers['num_starts']:,} is more than there are documents or tokens")
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict):
        raise fail("metadata", f"{_shown(metadata)} is not an object")
    end = metadata.get("end_of_document")
    if end is not None and (type(end) is not int or not 0 <= end < numbers["vocab_size"]):
        raise fail("metadata.end_of_document", f"{_shown(end)} is not a token id below {numbers['vocab_size']:,}")
    for kind, is_name in (("arrays", _is_array_name), ("attachments", is_plain_name)):
        entries = manifest.get(kind)
        if not isinstance(entries, dict):
            raise fail(kind, f"{_shown(entries)} is not an object")
        for name, entry in entries.items():
            if not is_name(name):
                raise fail(kind, f"{_shown(name)} can't be the name of one")
            _check_entry(f"{kind}.{name}", entry, fail)
    names = manifest.get("document_names")
    if names is not None and (not isinstance(names, str) or names not in manifest["attachments"]):
        raise fail("document_names", f"{_shown(names)} is not an attachment")
    layout = manifest.get("layout", "full")
    if layout not in LAYOUTS:
        raise fail("layout", f"{_shown(layout)} is none of {', '.join(LAYOUTS)}")
    _check_arrays(manifest["arrays"], numbers, layout, fail)


def _is_array_name(name: Any) -> bool:
    return isinstance(name, str) and _ARRAY_NAME(name) is not None


def _is_hex(text: Any, digits: int) -> bool:
    return isinstance(text, str) and len(text) == digits and _HEX(text) is not None


def _check_entry(field: str, entry: Any, fail: Callable[[str, str], IndexFormatError]) -> None:
    if not isinstance(entry, dict):
        raise fail(field, f"{_shown(entry)} is not an object")
    size, digest = entry.get("bytes"), entry.get("sha256")
    if type(size) is not int or not 0 <= size < 2**63:
        raise fail(f"{field}.bytes", f"{_shown(size)} is not a number of bytes")
    if not _is_hex(digest, 64):
        raise fail(f"{field}.sha256", f"{_shown(digest)} is not a SHA-256 in hex")
    sums, blocks = entry.get("crc32"), -(-size // SUMMED_BYTES)
    if sums is not None and not _is_hex(sums, 8 * blocks):
        raise fail(f"{field}.crc32", f"{_shown(sums)} is not the CRC-32 of {blocks:,} blocks in hex")


def _check_arrays(
    arrays: Mapping[str, Any], numbers: Mapping[str, int], layout: str, fail: Callable[[str, str], IndexFormatError]
) -> None:
    for name, entry in arrays.items():
        text, shape = entry.get("dtype"), entry.get("shape")
        if not isinstance(text, str) or not _NUMBER_TYPE(text):
            raise fail(f"arrays.{name}.dtype", f"{_shown(text)} is not the type of a number")
        if (
            not isinstance(shape, list)
            or not 1 <= len(shape) <= 4
            or not all(type(n) is int and 0 <= n < 2**48 for n in shape)
        ):
            raise fail(f"arrays.{name}.shape", f"{_shown(shape)} is not a shape")
        if entry["bytes"] != math.prod(shape) * np.dtype(text).itemsize:
            raise fail(f"arrays.{name}.bytes", f"{entry['bytes']:,} doesn't fit the type and shape")
    symbols, has_alphabet = numbers["num_symbols"], "alphabet" in arrays
    if symbols > numbers["vocab_size"] or (symbols < numbers["vocab_size"] and not has_alphabet):
        raise fail("num_symbols", f"{symbols:,} doesn't fit the vocabulary of {numbers['vocab_size']:,}")
    for name, (dtype, shape_) in _layout(numbers, layout, has_alphabet=has_alphabet).items():
        if name not in arrays:
            raise fail("arrays", f"{name!r} is missing")
        entry = arrays[name]
        if entry["dtype"] != dtype:
            raise fail(f"arrays.{name}.dtype", f"{_shown(entry['dtype'])} is not {dtype!r}")
        fits = len(entry["shape"]) == len(shape_) and all(
            wanted is None or wanted == n for wanted, n in zip(shape_, entry["shape"], strict=True)
        )
        if not fits:
            raise fail(f"arrays.{name}.shape", f"{entry['shape']} is not {_shape_text(shape_)}")
    if layout == "compact":
        for name, least in (("list_high", 1), ("list_low", 1), ("list_zeros", 2), ("sample_positions", 1)):
            if arrays[name]["shape"][0] < least:
                raise fail(f"arrays.{name}.shape", f"{arrays[name]['shape']} is too short")
        groups = -(-arrays["list_high"]["shape"][0] // 8)
        if arrays["list_ones"]["shape"][0] != groups + 1:
            raise fail("arrays.list_ones.shape", f"{arrays['list_ones']['shape']} doesn't fit that of 'list_high'")
        return
    for name, other, more in (("row_offsets", "row_bounds", 1), ("row_counts", "row_tokens", 0)):
        if arrays[name]["shape"][0] != arrays[other]["shape"][0] + more:
            raise fail(f"arrays.{name}.shape", f"{arrays[name]['shape']} doesn't fit that of {other!r}")


def _layout(numbers: Mapping[str, int], stored: str, *, has_alphabet: bool) -> dict[str, tuple[str, tuple[_Free, ...]]]:
    """Type and shape of every array of the format; None: any length."""
    n, starts, symbols = numbers["num_tokens"], numbers["num_starts"], numbers["num_symbols"]
    token = "<u2" if symbols <= 2**16 else "<u4"
    layout: dict[str, tuple[str, tuple[_Free, ...]]] = {
        "doc_starts": ("<i8", (numbers["num_documents"] + 1,)),
        "doc_directory": ("<u4", ((n >> numbers["document_shift"]) + 1,)),
        "next_tokens": (token, (n,)),
        "common": ("|u1", (n,)),
        "minima": ("|u1", (int(levels_of(n)[-1]),)),
        "symbols": ("<u4", (symbols + 1, 4)),
        "endings": ("<u8", (starts,)),
        "row_bounds": ("<u4", (None, 2)),
        "row_directory": ("<u4", ((n >> numbers["row_shift"]) + 2,)),
    }
    if has_alphabet:
        layout["alphabet"] = ("<u4", (symbols,))
    if stored == "compact":
        marks = -(-n // 64)
        return layout | {
            "list_high": ("<u8", (None,)),
            "list_low": ("<u8", (None,)),
            "list_ones": ("<u4", (None,)),
            "list_zeros": ("<u4", (None,)),
            "after_endings": ("<u4", (starts,)),
            "sample_marks": ("<u8", (marks,)),
            "sample_ones": ("<u4", (-(-marks // 8) + 1,)),
            "sample_positions": ("<u4", (None,)),
            "sample_ranks": ("<u4", (((n - 1) >> numbers["sample_shift"]) + 1,)),
        }
    text: dict[str, tuple[str, tuple[_Free, ...]]] = {"tokens": (token, (n,)), "order": ("<u4", (n,))}
    return (
        text
        | layout
        | {
            "near": ("<u2", (None,)),
            "far": ("<u4", (None,)),
            "occurrence_directory": ("<u4", (None,)),
            "row_offsets": ("<i8", (None,)),
            "row_tokens": (token, (None,)),
            "row_counts": ("<u4", (None,)),
        }
    )


def _shape_text(shape: tuple[_Free, ...]) -> str:
    return str(["any" if n is None else n for n in shape]).replace("'", "")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
