"""A cached neural teacher: what a model once said of windows of tokens, read back by content.

Naively: a dictionary from windows to targets. The cache is a folder of shards (`corpus_teacher.neural.shards`); a
window is found by the hash of its tokens, in whatever order, batch and run it comes. A window that the model has never
seen has no answer: it is refused, or marked as not valid where a fallback is to take over.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import CacheError, ConfigError, InputError, MissingWindowError, TokenizerError
from corpus_teacher.neural.coding import RecordCodec
from corpus_teacher.neural.formats import SparseRows, TargetFormat, soft_targets
from corpus_teacher.neural.identity import (
    check_same_tokenizer,
    check_vocabulary,
    log_cut,
    token_rows,
    window_keys,
)
from corpus_teacher.neural.live import LogitChunk, base_distribution, head_chunks, kept_rows
from corpus_teacher.neural.pretrained import known_device
from corpus_teacher.neural.shards import Shard, check_sum, check_sums, read_manifest
from corpus_teacher.targets import AnyTargets, DenseTargets, SoftTargets
from corpus_teacher.teaching import ContentTeacher

MISSING = ("refuse", "invalid")
"""What happens to windows that a cache lacks."""


class CachedTeacher(ContentTeacher):
    """The targets of a neural teacher, out of a cache.

    Parameters
    ----------
    path : str or Path
        The folder that `write_cache` or `corpus-teacher teacher cache` made.
    vocab_size : int, optional
        V of the student or index. Refused unless it is the cache's, or the cache has more that are padding, as of a
        live model (`NeuralTeacher`): those are left out and the rest renormalised, which is logged.
    student_tokenizer : Tokenizer, str, Path or CorpusIndex, optional
        The student's, or the index's: refused unless the cache was made with it, or with one that has more tokens and
        these with the same ids, and that still lies where it was; then the targets are cut to the student's tokens.
    k : int, optional
        Only the k most probable of the cached tokens ("top-k" and "top-p").
    kept : TargetFormat, optional
        For a cache of hidden states, what its logits become; top-k with k = 64 by default.
    base, tail
        As in `NeuralTeacher`.
    missing : {"refuse", "invalid"}
        Windows that the cache lacks raise `MissingWindowError`, or give targets that aren't valid.
    device : torch.device or str
        Where the logits of hidden states are computed, and the targets are.

    Raises
    ------
    CacheError
        No cache, or a damaged one.
    ConfigError, TokenizerError
        Another vocabulary or tokenizer; a setting that doesn't fit the cache.

    Notes
    -----
    Pickles as its path and settings: each DataLoader worker opens its own memory maps.
    """

    is_stored = True

    def __init__(
        self,
        path: str | Path,
        *,
        vocab_size: int | None = None,
        student_tokenizer: Any = None,
        k: int | None = None,
        kept: TargetFormat | None = None,
        base: npt.ArrayLike | Tensor | None = None,
        tail: str = "base",
        missing: str = "refuse",
        device: torch.device | str = "cpu",
    ) -> None:
        if missing not in MISSING:
            raise ConfigError(f"missing is {missing!r}: give one of {', '.join(MISSING)}")
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.stored = TargetFormat(**self.manifest["kept"])
        self.length = int(self.manifest["length"])
        self._vocab_size = self._read_vocabulary(vocab_size, student_tokenizer)
        if k is not None and (self.stored.kind not in ("top-k", "top-p") or not 1 <= k <= self.stored.k):
            raise ConfigError(
                f"k is {k} and the cache keeps {self.stored.describe()}: give 1 to its k, or leave it out"
            )
        if kept is not None and self.stored.kind != "hidden":
            raise ConfigError(
                f"the cache keeps {self.stored.describe()}: only hidden states can be given another format"
            )
        self.k, self.tail, self.missing = k, tail, missing
        self.device = known_device(device)
        self.kept = (kept or TargetFormat("top-k", k=min(64, self.vocab_size))) if self.is_hidden else self.stored
        if self.kept.kind == "hidden":
            raise ConfigError("hidden states are no target: give all, top-k, top-p, sample or systematic as kept")
        self.base = base_distribution(base, self.vocab_size).to(self.device)
        self._codec = RecordCodec(self.stored, self._stored_size, self.length, int(self.manifest["hidden_size"]))
        self._shards = [Shard(self.path / entry["file"], entry) for entry in self.manifest["shards"]]
        self._find = _KeyTable([shard.keys for shard in self._shards])
        self._head: tuple[Tensor, Tensor | None] | None = None

    @property
    def vocab_size(self) -> int:
        """V of every target."""
        return self._vocab_size

    @property
    def _stored_size(self) -> int:
        """The tokens that the model knew."""
        return int(self.manifest["teacher"]["vocab_size"])

    @property
    def is_hidden(self) -> bool:
        """Whether hidden states are what is cached."""
        return self.stored.kind == "hidden"

    @property
    def num_windows(self) -> int:
        """Windows that the cache holds."""
        return sum(int(entry["windows"]) for entry in self.manifest["shards"])

    @property
    def size_bytes(self) -> int:
        """All files but the manifest."""
        head = self.manifest["head"]
        return sum(int(entry["bytes"]) for entry in self.manifest["shards"]) + (int(head["bytes"]) if head else 0)

    @property
    def mean_cut_mass(self) -> float:
        """Mean mass beyond the kept tokens, over all positions of the cache."""
        cut = sum(float(entry["cut_mass"]) for entry in self.manifest["shards"])
        return cut / max(1, self.num_windows * self.length)

    def __len__(self) -> int:
        return self.num_windows

    def __repr__(self) -> str:
        return (
            f"CachedTeacher({str(self.path)!r}, {self.stored.describe()}, windows={self.num_windows}, "
            f"length={self.length})"
        )

    def __contains__(self, window: npt.ArrayLike | Tensor) -> bool:
        rows = token_rows(window, self.vocab_size)
        return rows.shape[1] == self.length and all(place is not None for place in self._find(window_keys(rows)))

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "k", "tail", "missing", "device")
        settings = {name: getattr(self, name) for name in names} | {"kept": self.kept if self.is_hidden else None}
        return {"settings": settings, "size": self.vocab_size, "base": self.base, "said_by": self._said_by()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(CachedTeacher(**state["settings"]).__dict__)
        self._vocab_size, self.base = state["size"], state["base"]
        if self._said_by() != state["said_by"]:
            raise CacheError(f"the cache {self.path} was replaced since it was pickled: open it again")

    def _said_by(self) -> str:
        """What stays while a cache grows: teacher, format and length, hashed."""
        content = [self.manifest[name] for name in ("teacher", "kept", "length")]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """Of the model that said it; see `NeuralTeacher.identity`."""
        return dict(self.manifest["teacher"])

    def describe(self) -> dict[str, Any]:
        """The identity of the model, the cache and the settings, for reports and checkpoints."""
        return {
            **self.identity(),
            "cache": self.stored.describe(),
            **self.kept.describe(),
            "k_read": self.k,
            "vocab_size": self.vocab_size,
            "tail": self.tail,
            "mean_cut_mass": self.mean_cut_mass,
        }

    def verify(self) -> list[str]:
        """Compare all files with their SHA-256.

        Returns
        -------
        list of str
            The files.

        Raises
        ------
        CacheError
            At the first that is damaged.
        """
        return list(check_sums(self.path, self.manifest))

    def teach(self, input_ids: npt.ArrayLike | Tensor) -> AnyTargets:
        """The cached targets of windows, as a call gives them.

        Parameters
        ----------
        input_ids : array_like or Tensor of shape (B, T) or (T,), integer
            Windows that were cached, in any order.

        Returns
        -------
        SoftTargets, or DenseTargets where all is asked of hidden states
            Of Q = B · T positions, row by row.

        Raises
        ------
        InputError
            Windows of another length than the cache's.
        MissingWindowError
            A window that the cache lacks, with missing="refuse".
        CacheError
            A damaged record.
        """
        rows = token_rows(input_ids, self.vocab_size)
        if self.missing == "invalid" and rows.shape[1] != self.length:  # a segment that no window of the cache is
            return self._unknown(rows.size)
        places = self._places(rows)
        known = torch.tensor([place is not None for place in places]).repeat_interleave(self.length)
        if self.kept.kind == "all":
            return self._whole(rows, places, known.to(self.device))
        if self.is_hidden and bool(known.all()):
            kept = kept_rows(self, rows, self.kept)
        elif self.is_hidden:
            found = [number for number, place in enumerate(places) if place is not None]
            parts = dict(zip(found, (kept_rows(self, rows[[n]], self.kept) for n in found), strict=True))
            kept = SparseRows.concatenate([parts.get(n) or _silent(self.length) for n in range(len(rows))])
        else:
            kept = SparseRows.concatenate([self._decoded(place) for place in places])
        targets = soft_targets(SparseRows(*(part.to(self.device) for part in kept)), self.base, tail=self.tail)
        return targets if bool(known.all()) else _without(targets, known.to(self.device))

    def hidden_states(self, input_ids: npt.ArrayLike | Tensor) -> Tensor:
        """Cached hidden states, (B · T, H) float32.

        Raises
        ------
        ConfigError
            A cache of something else.
        InputError, MissingWindowError, CacheError
            As in a call.
        """
        if not self.is_hidden:
            raise ConfigError(f"the cache {self.path} keeps {self.stored.describe()} and no hidden states")
        rows = token_rows(input_ids, self.vocab_size)
        parts = [self._hidden(place) for place in self._places(rows, refuse=True)]
        return torch.cat(parts).to(self.device)

    def logit_chunks(self, input_ids: npt.ArrayLike | Tensor) -> Iterator[LogitChunk]:
        """(lo, hi, logits) from cached hidden states; see `NeuralTeacher.logit_chunks`, whose errors it has and those
        of `hidden_states`."""
        hidden = self.hidden_states(input_ids)
        weight, bias = self.output_embedding()
        return head_chunks(hidden, weight, bias)

    def logits(self, input_ids: npt.ArrayLike | Tensor) -> Tensor:
        """All logits of a batch from cached hidden states, (B, T, V) float32: V numbers a position."""
        rows = token_rows(input_ids, self.vocab_size)
        return torch.cat([logits for *_, logits in self.logit_chunks(rows)]).reshape(*rows.shape, self.vocab_size)

    def output_embedding(self) -> tuple[Tensor, Tensor | None]:
        """Weight (V, H) and bias (V,) or None, float32, that turn the hidden states into logits.

        Raises
        ------
        ConfigError
            A cache without hidden states.
        CacheError
            A damaged file.
        """
        entry = self.manifest["head"]
        if entry is None:
            raise ConfigError(f"the cache {self.path} keeps {self.stored.describe()} and no output embedding")
        if self._head is None:
            check_sum(self.path, entry)
            try:
                saved = torch.load(io.BytesIO((self.path / entry["file"]).read_bytes()), weights_only=True)
                weight, bias = saved["weight"], saved["bias"]
                fits = weight.shape == (self._stored_size, int(self.manifest["hidden_size"]))
                fits = fits and (bias is None or bias.shape == (self._stored_size,))
            except Exception as error:  # zip, pickle and torch all have errors of their own
                raise CacheError(f"the head of the cache {self.path} can't be read: write the cache again") from error
            if not fits:
                raise CacheError(f"the head of the cache {self.path} is of another model: write the cache again")
            self._head = (
                weight[: self.vocab_size].to(self.device, torch.float32),
                (None if bias is None else bias[: self.vocab_size].to(self.device, torch.float32)),
            )
        return self._head

    def _unknown(self, num_positions: int) -> AnyTargets:
        """No target at all, at so many positions."""
        none = torch.zeros(num_positions, dtype=torch.bool, device=self.device)
        if self.kept.kind == "all":
            return DenseTargets(torch.zeros(num_positions, self.vocab_size, device=self.device), none)
        silent = SparseRows(*(part.to(self.device) for part in _silent(num_positions)))
        return _without(soft_targets(silent, self.base, tail=self.tail), none)

    def _whole(self, rows: npt.NDArray[Any], places: list[tuple[int, int] | None], known: Tensor) -> DenseTargets:
        """All logits of cached hidden states; those of missing windows are 0 and not valid."""
        logits = torch.zeros(rows.size, self.vocab_size, device=self.device)
        found = [number for number, place in enumerate(places) if place is not None]
        if found:
            logits[known] = self.logits(rows[found]).reshape(-1, self.vocab_size)
        return DenseTargets(logits, known)

    def _places(self, rows: npt.NDArray[Any], *, refuse: bool = False) -> list[tuple[int, int] | None]:
        """Shard and number of each window."""
        if rows.shape[1] != self.length:
            raise InputError(
                f"the windows have {rows.shape[1]} tokens and those of the cache {self.path} {self.length}: "
                f"cut the text into windows of {self.length}"
            )
        places = self._find(window_keys(rows))
        if None in places and (refuse or self.missing == "refuse"):
            first = places.index(None)
            raise MissingWindowError(
                f"the cache {self.path} lacks {places.count(None)} of {len(places)} windows, the first of them "
                "beginning with the tokens "
                f"{rows[first, :8].tolist()}: cache the text that is trained on, cut in the same way, or open it "
                "with missing='invalid'"
            )
        return places

    def _decoded(self, place: tuple[int, int] | None) -> SparseRows:
        if place is None:
            return _silent(self.length)
        rows = self._codec.decode_sparse(self._shards[place[0]].record(place[1]))
        if self.vocab_size < self._stored_size:
            rows = _below(rows, self.vocab_size)
        return rows if self.k is None else _first(rows, self.k)

    def _hidden(self, place: tuple[int, int] | None) -> Tensor:
        shard, number = place or (0, 0)
        return self._codec.decode_hidden(self._shards[shard].record(number))

    def _read_vocabulary(self, vocab_size: int | None, student: Any) -> int:
        """V of the targets, cut as those of live models are; refuses what doesn't fit the student or index."""
        size = self._stored_size
        if vocab_size is not None and vocab_size > size:
            raise ConfigError(
                f"the cache {self.path} has {size:,} tokens and the student or index {vocab_size:,}: "
                "cache the teacher with the student's vocabulary"
            )
        if student is None:
            return check_vocabulary(size, vocab_size, None)
        own = student if isinstance(student, Tokenizer) else load_tokenizer(student)
        cut = self._check_tokenizer(own)
        if cut is None or vocab_size not in (None, cut):
            return check_vocabulary(size, vocab_size, own)
        log_cut(f"the cache {self.path} has {size - cut:,} tokens beyond the student's {cut:,}, whose ids are the same")
        return cut

    def _check_tokenizer(self, student: Tokenizer) -> int | None:
        """Refuse another tokenizer; the student's V where the cache's has more tokens, and these with the same ids."""
        teacher = self.manifest["teacher"]
        if teacher["tokenizer_fingerprint"] is None:
            raise TokenizerError(
                f"the cache {self.path} was made without a tokenizer, so that nobody can tell whether it is the "
                "student's: cache the teacher with its tokenizer"
            )
        if teacher["tokenizer_fingerprint"] in (student.fingerprint, student.file_fingerprint):
            return None
        with contextlib.suppress(TokenizerError, InputError):
            theirs = load_tokenizer(teacher["tokenizer"])
            if teacher["tokenizer_fingerprint"] in (theirs.fingerprint, theirs.file_fingerprint):
                return check_same_tokenizer(theirs, student)
        raise TokenizerError(
            f"the cache {self.path} was made with the tokenizer {teacher['tokenizer']!r} "
            f"({teacher['tokenizer_fingerprint'][:12]}…), "
            f"the student's is {student.spec!r} ({student.fingerprint[:12]}…): use the teacher's tokenizer for both"
        )


class _KeyTable:
    """Keys of all windows → shard and number, by a sorted array of their first 8 bytes."""

    def __init__(self, keys: list[npt.NDArray[np.uint8]]) -> None:
        whole = np.concatenate([np.empty((0, 16), np.uint8), *keys])
        shards = np.repeat(np.arange(len(keys)), [len(part) for part in keys])
        numbers = np.concatenate([np.empty(0, np.int64), *(np.arange(len(part)) for part in keys)])
        heads = np.ascontiguousarray(whole[:, :8]).view("<u8")[:, 0]
        order = np.argsort(heads, kind="stable")
        self.heads, self.keys, self.shards, self.numbers = heads[order], whole[order], shards[order], numbers[order]

    def __call__(self, keys: list[bytes]) -> list[tuple[int, int] | None]:
        wanted = np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)[:, 0]
        places: list[tuple[int, int] | None] = []
        for key, at in zip(keys, np.searchsorted(self.heads, wanted).tolist(), strict=True):
            while at < len(self.heads) and self.keys[at, :8].tobytes() == key[:8] and self.keys[at].tobytes() != key:
                at += 1
            same = at < len(self.heads) and self.keys[at].tobytes() == key
            places.append((int(self.shards[at]), int(self.numbers[at])) if same else None)
        return places


def _silent(length: int) -> SparseRows:
    """Positions of a window without an answer: all mass on the base."""
    none = torch.zeros(0)
    return SparseRows(torch.zeros(length, dtype=torch.int64), none.long(), none, torch.ones(length))


def _below(rows: SparseRows, vocab_size: int) -> SparseRows:
    """Only the tokens below V, renormalised; a position that has none of them is without an answer."""
    position = torch.arange(rows.lengths.shape[0]).repeat_interleave(rows.lengths)
    chosen = rows.token_ids < vocab_size
    dropped = torch.zeros_like(rows.tail).index_add(0, position[~chosen], rows.probs[~chosen])
    left = 1 - dropped
    none = left <= torch.finfo(torch.float32).eps
    left = torch.where(none, 1.0, left)
    tail = torch.where(none, 1.0, rows.tail / left)
    lengths = torch.zeros_like(rows.lengths).index_add(0, position[chosen], torch.ones_like(position[chosen]))
    return SparseRows(lengths, rows.token_ids[chosen], rows.probs[chosen] / left[position[chosen]], tail)


def _first(rows: SparseRows, k: int) -> SparseRows:
    """Only the first k tokens of each position; the rest of their mass joins the tail."""
    starts = rows.lengths.cumsum(0) - rows.lengths
    position = torch.arange(rows.lengths.shape[0]).repeat_interleave(rows.lengths)
    chosen = torch.arange(rows.token_ids.shape[0]) - starts[position] < k
    tail = rows.tail.index_add(0, position[~chosen], rows.probs[~chosen])
    return SparseRows(rows.lengths.clamp_max(k), rows.token_ids[chosen], rows.probs[chosen], tail)


def _without(targets: SoftTargets, known: Tensor) -> SoftTargets:
    """Targets whose unknown positions aren't valid."""
    return replace(targets, valid=known, cut_mass=torch.where(known, targets.cut_mass, 0))
