"""What a sharded index says of itself: which indexes it is made of, in which order, and how it came to be.

A sharded index is a folder with this manifest and one folder for each shard, an ordinary index. It is never changed
once it has its name: whoever adds, merges or removes writes a new folder, in which shards that stay are links to the
same files, and exchanges it in one step. A shard's folder bears the beginning of its fingerprint, so a name never
stands for two contents, and readers that open shard by shard can't mix versions. Documents that were removed are in a
mask, a file beside the shards, until shards are merged. index/README.md has the format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corpus_index.errors import IndexFormatError, IndexWriteError
from corpus_index.manifest import FORMAT, MANIFEST, open_regular, read_json, seal

SHARDS_FORMAT = "corpus-index-shards"
SHARDS_VERSION = 2
"""Of folders in which a shard has a mask; others are of version 1."""

_AGAIN = "build the index again"
_MOST = 2**62
_SHARD_NAME = re.compile(r"shard-[0-9a-f]{16}(-[0-9]{1,6})?")
_MASK_NAME = re.compile(r"mask-[0-9a-f]{16}\.bin")
_HEX = re.compile("[0-9a-f]{64}")


class MaskEntry(NamedTuple):
    """The mask of a shard: which documents were removed from it, as the manifest names it.

    Attributes
    ----------
    name : str
        Its file, in the folder of the sharded index.
    sha256 : str
        Of that file, hex.
    documents, tokens : int
        That it takes out.
    """

    name: str
    sha256: str
    documents: int
    tokens: int


class ShardEntry(NamedTuple):
    """One shard, as the manifest names it.

    Attributes
    ----------
    name : str
        Its folder.
    fingerprint : str
        Of that index.
    first_document, first_position : int
        Documents and tokens of the shards before it.
    num_documents, num_tokens : int
        Those that are left, where documents were removed.
    mask : MaskEntry or None
        What was removed.
    """

    name: str
    fingerprint: str
    first_document: int
    first_position: int
    num_documents: int
    num_tokens: int
    mask: MaskEntry | None = None

    def fields(self) -> dict[str, Any]:
        """As the manifest has it."""
        known = self._asdict()
        del known["mask"]
        return known if self.mask is None else {**known, "mask": self.mask._asdict()}


def shard_name(fingerprint: str, taken: Sequence[str] = ()) -> str:
    """The folder of a shard; shards of the same content are told apart by a number.

    >>> shard_name("0123456789abcdef" * 4, ["shard-0123456789abcdef"])
    'shard-0123456789abcdef-1'
    """
    name, number = f"shard-{fingerprint[:16]}", 0
    while name in taken:
        number += 1
        name = f"shard-{fingerprint[:16]}-{number}"
    return name


def mask_name(sha256: str) -> str:
    """The file of a mask of that content.

    >>> mask_name("0123456789abcdef" * 4)
    'mask-0123456789abcdef.bin'
    """
    return f"mask-{sha256[:16]}.bin"


def is_mask_name(name: Any) -> bool:
    """Whether a name may be that of a mask's file."""
    return isinstance(name, str) and _MASK_NAME.fullmatch(name) is not None


def is_shard_name(name: Any) -> bool:
    """Whether a name may be that of a shard's folder."""
    return isinstance(name, str) and _SHARD_NAME.fullmatch(name) is not None


_BEGINNING = re.compile(rb'\s*\{\s*"format":\s*"([^"]*)"').match


def likely_format_of(path: Path) -> str | None:
    """As `format_of`, from the beginning of the manifest alone where it is as we write it: for who reads it anyway."""
    try:
        descriptor = open_regular(path / MANIFEST)
        try:
            told = _BEGINNING(os.read(descriptor, 100))
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return format_of(path) if told is None else told[1].decode("utf-8", "replace")


def format_of(path: Path) -> str | None:
    """What a folder says that it is, `FORMAT` or `SHARDS_FORMAT`; None where it is neither by its own word."""
    try:
        named = read_json(path / MANIFEST)["format"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return named if named in (FORMAT, SHARDS_FORMAT) else None


def refuse_inside(path: Path) -> None:
    """Refuse a place in the folder of a sharded index, which is changed as a whole.

    Raises
    ------
    IndexWriteError
    """
    if format_of(path.parent) == SHARDS_FORMAT:
        raise IndexWriteError(
            f"{path} is in the folder of a sharded index: change {path.parent}, or name another place"
        )


def shards_manifest(
    shards: Sequence[ShardEntry], vocab_size: int, metadata: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The manifest of a sharded index, sealed."""
    manifest = {
        "format": SHARDS_FORMAT,
        "version": SHARDS_VERSION if any(entry.mask for entry in shards) else 1,
        "vocab_size": vocab_size,
        "metadata": dict(metadata),
        "shards": [entry.fields() for entry in shards],
        "history": [dict(entry) for entry in history],
    }
    manifest["fingerprint"] = seal(manifest)
    return manifest


def load_shards_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a sharded index, its seal and all fields checked.

    Raises
    ------
    FileNotFoundError
        There is none.
    IndexFormatError
        It is damaged, of another format or a newer version, or a field is wrong.
    """
    where = path / MANIFEST
    try:
        manifest = read_json(where)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise IndexFormatError(f"{where} can't be read ({reason}): {_AGAIN}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != SHARDS_FORMAT:
        raise IndexFormatError(f"{where} describes no {SHARDS_FORMAT}: give the folder that `index build` wrote")
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= SHARDS_VERSION:
        raise IndexFormatError(
            f"{path} has format version {version} of sharded indexes, this program reads up to {SHARDS_VERSION}: "
            f"upgrade corpus-teacher, or {_AGAIN}"
        )
    if manifest.get("fingerprint") != seal(manifest):
        raise IndexFormatError(f"{where} was changed after it was written: {_AGAIN}")
    check_shards_manifest(manifest, where)
    return manifest


def entries_of(manifest: Mapping[str, Any]) -> list[ShardEntry]:
    """The shards that a checked manifest names."""
    plain = [field for field in ShardEntry._fields if field != "mask"]
    return [
        ShardEntry(**{field: entry[field] for field in plain}, mask=_mask_of(entry)) for entry in manifest["shards"]
    ]


def _mask_of(entry: Mapping[str, Any]) -> MaskEntry | None:
    return MaskEntry(**{field: entry["mask"][field] for field in MaskEntry._fields}) if "mask" in entry else None


def check_shards_manifest(manifest: Mapping[str, Any], where: Path) -> None:
    """Check the types and ranges of all fields, and that the shards follow one another.

    Raises
    ------
    IndexFormatError
        Naming the first field that is wrong.
    """

    def fail(field: str, value: Any, what: str) -> IndexFormatError:
        text = repr(value)
        shown = text if len(text) <= 80 else f"{text[:77]}…"
        return IndexFormatError(f"{where} is wrong in {field!r}: {shown} is not {what}; {_AGAIN}")

    vocab_size, shards = manifest.get("vocab_size"), manifest.get("shards")
    if type(vocab_size) is not int or not 1 <= vocab_size <= 2**31:
        raise fail("vocab_size", vocab_size, "an integer in 1 .. 2^31")
    metadata, history = manifest.get("metadata"), manifest.get("history")
    if not isinstance(metadata, dict):
        raise fail("metadata", metadata, "an object")
    end = metadata.get("end_of_document")
    if end is not None and (type(end) is not int or not 0 <= end < vocab_size):
        raise fail("metadata.end_of_document", end, f"a token id below {vocab_size:,}")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise fail("history", history, "a list of objects")
    if not isinstance(shards, list) or not shards:
        raise fail("shards", shards, "a list of at least one shard")
    document = position = 0
    names: set[str] = set()
    for number, entry in enumerate(shards):
        field = f"shards[{number}]"
        if not isinstance(entry, dict) or not is_shard_name(entry.get("name")) or entry["name"] in names:
            raise fail(field, entry, "a shard with a name of its own")
        names.add(entry["name"])
        fingerprint = entry.get("fingerprint")
        if not isinstance(fingerprint, str) or not _HEX.fullmatch(fingerprint):
            raise fail(f"{field}.fingerprint", fingerprint, "a fingerprint in hex")
        for name, wanted in (("first_document", document), ("first_position", position)):
            if type(entry.get(name)) is not int or entry[name] != wanted:
                raise fail(f"{field}.{name}", entry.get(name), f"{wanted:,}, the sum of those before")
        for name in ("num_documents", "num_tokens"):
            if type(entry.get(name)) is not int or not 1 <= entry[name] <= _MOST:
                raise fail(f"{field}.{name}", entry.get(name), "a number above 0")
        if "mask" in entry:
            _check_mask(entry["mask"], f"{field}.mask", fail)
        document += entry["num_documents"]
        position += entry["num_tokens"]


def _check_mask(mask: Any, field: str, fail: Callable[[str, Any, str], IndexFormatError]) -> None:
    if not isinstance(mask, dict) or not is_mask_name(mask.get("name")):
        raise fail(field, mask, "a mask with a name")
    sha256 = mask.get("sha256")
    if not isinstance(sha256, str) or not _HEX.fullmatch(sha256) or mask["name"] != mask_name(sha256):
        raise fail(f"{field}.sha256", sha256, "a SHA-256 in hex that fits the name")
    for name, least in (("documents", 1), ("tokens", 0)):
        if type(mask.get(name)) is not int or not least <= mask[name] <= _MOST:
            raise fail(f"{field}.{name}", mask.get(name), f"a number from {least} on")
