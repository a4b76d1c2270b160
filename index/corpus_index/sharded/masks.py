"""A mask: the documents of a shard that were removed, in a file beside the shard, which stays as it is.

The file holds the removed documents' numbers in the shard (int64, ascending), then the ranks of their positions
(uint32, ascending): 4 bytes per removed token, so that opening costs no walk over the texts. The manifest of the
sharded index names the file, its checksum, and the counts. Little-endian.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from corpus_index.core.matching import Matcher
from corpus_index.errors import IndexFormatError
from corpus_index.shard_manifest import MaskEntry, mask_name

_AGAIN = "copy the index again, or build it again"
_MOST_WALKED = 1 << 24  # tokens whose ranks are found at a time


class Mask(NamedTuple):
    """What is taken out of a shard.

    Attributes
    ----------
    documents : ndarray of shape (n,), int64
        By their numbers in the shard, ascending.
    ranks : ndarray of shape (r,), uint32
        Of all their positions, ascending.
    """

    documents: np.ndarray
    ranks: np.ndarray

    def content(self) -> bytes:
        """The bytes of the file."""
        return self.documents.astype("<i8").tobytes() + self.ranks.astype("<u4").tobytes()

    def entry(self) -> MaskEntry:
        """What the manifest says of it."""
        digest = hashlib.sha256(self.content()).hexdigest()
        return MaskEntry(mask_name(digest), digest, int(self.documents.size), int(self.ranks.size))

    def and_documents(self, shard: Matcher, documents: np.ndarray) -> Mask:
        """The mask with more documents of the shard, by their numbers in the shard; a step a token of them."""
        parts, starts = [self.ranks], shard.doc_starts
        cuts = np.flatnonzero(np.diff(np.cumsum(np.diff(starts)[documents]) // _MOST_WALKED)) + 1
        for some in np.split(documents, cuts):
            parts.append(shard.document_ranks(some)[1].astype(np.uint32))
        return Mask(np.union1d(self.documents, documents), np.sort(np.concatenate(parts)))


def no_mask() -> Mask:
    """The mask that takes nothing out."""
    return Mask(np.zeros(0, np.int64), np.zeros(0, np.uint32))


def read_mask(folder: Path, entry: MaskEntry, shard: Matcher, *, check: bool) -> Mask:
    """The mask of a shard from its file in the folder of the sharded index.

    check: compare the file with its checksum. What it says is compared with the shard in any case.

    Raises
    ------
    IndexFormatError
        It can't be read, is damaged, or is not the shard's.
    """
    where = folder / entry.name
    try:
        content = where.read_bytes()
    except OSError as error:
        raise IndexFormatError(f"{where} can't be read ({error.strerror or error}): {_AGAIN}") from error
    if len(content) != 8 * entry.documents + 4 * entry.tokens:
        raise IndexFormatError(f"{where} has {len(content):,} bytes, which its manifest denies: {_AGAIN}")
    if check and hashlib.sha256(content).hexdigest() != entry.sha256:
        raise IndexFormatError(f"{where} was changed after it was written: {_AGAIN}")
    documents = np.frombuffer(content, "<i8", entry.documents).astype(np.int64)
    ranks = np.frombuffer(content, "<u4", entry.tokens, 8 * entry.documents).astype(np.uint32)
    inside = all(
        part.size == 0 or (int(part[0]) >= 0 and int(part[-1]) < end and bool((part[1:] > part[:-1]).all()))
        for part, end in ((documents, shard.num_documents), (ranks, shard.num_tokens))
    )
    if not inside or int(np.diff(shard.doc_starts)[documents].sum()) != ranks.size:
        raise IndexFormatError(f"{where} is not a mask of {shard.path}: {_AGAIN}")
    return Mask(documents, ranks)
