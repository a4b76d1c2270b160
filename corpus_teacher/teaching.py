"""What a teacher is: something that is called with token ids and says what should follow.

The corpus, a live model, a cache of one and the student's moving average are the same kind of thing, a `Teacher`, and
are passed on as objects. The three that a training may have travel as one value, `Teachers`. A function of the user's,
or a method of a teacher (``teacher.logits``), becomes a teacher in one place, `as_teacher`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.errors import ConfigError
from corpus_teacher.segments import Batch, read_batch, scattered
from corpus_teacher.targets import AnyTargets, DenseTargets


@runtime_checkable
class Teacher(Protocol):
    """What every teacher can do."""

    @property
    def vocab_size(self) -> int | None:
        """V of its targets; None only of a function of the user's, whose targets have yet to be seen."""

    def describe(self) -> dict[str, Any]:
        """Identity and settings, for reports and checkpoints; JSON can hold them."""

    def __call__(
        self,
        input_ids: Batch,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
        positions: npt.ArrayLike | None = None,
        **columns: Any,
    ) -> AnyTargets:
        """Targets of the B · T positions of a batch, given as `corpus_teacher.segments.read_batch` reads it, whether
        this teacher asks for next_ids, starts_document and positions or not. Every segment is answered as if it was
        asked alone; padding has no target."""


class ContentTeacher:
    """Base of teachers that read the tokens of rows, and nothing else that a batch knows: models, and caches of them.

    A subclass has `vocab_size`, `describe` and `teach`.

    Attributes
    ----------
    is_stored : bool
        Whether its answers lie on disk, so that the loader's workers may read them ahead of the student.
    pads_rows : bool
        Whether rows may be padded on the right: what it says of a token then doesn't depend on those that follow.
    """

    is_stored = False
    pads_rows = False

    def __call__(
        self,
        input_ids: Batch,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
        positions: npt.ArrayLike | None = None,
        **columns: Any,
    ) -> AnyTargets:
        """Teach every position of a batch.

        Parameters
        ----------
        input_ids : array_like or Tensor of shape (B, T) or (T,), integer; or a mapping with "input_ids"
        next_ids, positions
            As a `CorpusTeacher` takes them, and not read.
        starts_document, **columns
            As `corpus_teacher.segments.read_batch` takes them: attention_mask, position_ids, document_ids,
            cu_seq_lens, end_token.

        Returns
        -------
        SoftTargets or DenseTargets
            Of Q = B · T positions, row by row; each segment as if it was asked alone, padding without a target.
            Errors are those of `read_batch` and `teach`.
        """
        batch = read_batch(input_ids, starts_document=starts_document, columns=columns)
        ids: npt.ArrayLike | Tensor = input_ids["input_ids"] if isinstance(input_ids, Mapping) else input_ids
        if batch.is_plain:
            return self.teach(ids)
        device = ids.device if isinstance(ids, Tensor) else "cpu"
        groups = batch.groups(pad=self.pads_rows)
        parts = [(self.teach(torch.from_numpy(group.rows).to(device)), group) for group in groups]
        said: AnyTargets = scattered(parts, batch.num_positions)
        return said

    def teach(self, input_ids: npt.ArrayLike | Tensor) -> AnyTargets:
        """The targets of rows of token ids."""
        raise NotImplementedError


class FunctionTeacher(ContentTeacher):
    """A function of token ids as a teacher: of the user's, or a method of a teacher.

    Parameters
    ----------
    ask : callable
        Input ids, (B, T) → targets, or logits of shape (B, T, V).
    owner : Teacher, optional
        Whose method it is: its vocabulary and description are the function's.
    """

    def __init__(self, ask: Callable[[Any], Any], owner: Teacher | None = None) -> None:
        self.ask = ask
        self.owner = owner

    @property
    def vocab_size(self) -> int | None:
        """V of the owner; None without one."""
        return None if self.owner is None else self.owner.vocab_size

    def describe(self) -> dict[str, Any]:
        """The owner's description, and the name of the function."""
        name = getattr(self.ask, "__qualname__", type(self.ask).__name__)
        return {**({} if self.owner is None else self.owner.describe()), "asked": name}

    def teach(self, input_ids: npt.ArrayLike | Tensor) -> AnyTargets:
        """What the function says; logits become `DenseTargets`."""
        said = self.ask(input_ids)
        return DenseTargets(said) if isinstance(said, Tensor) else said


def as_teacher(given: Any, what: str = "the teacher") -> Teacher | None:
    """A teacher of what a user gives: a `Teacher` as it is, a function or a method of a teacher wrapped, None as None.

    Raises
    ------
    ConfigError
        Something that can't be called.
    """
    if given is None or isinstance(given, Teacher):
        return given
    if not callable(given):
        raise ConfigError(
            f"{what} is a {type(given).__name__}: give a CorpusTeacher, NeuralTeacher, CachedTeacher, EmaTeacher, or "
            "a function of token ids"
        )
    owner = getattr(given, "__self__", None)
    return FunctionTeacher(given, owner if isinstance(owner, Teacher) else None)


@dataclass(frozen=True)
class Teachers:
    """The soft teachers of a training, by the names that policies know: "corpus", "neural" and "self".

    Parameters
    ----------
    corpus, neural, self_teacher : Teacher, callable or None
        Callables are wrapped (`as_teacher`).

    Raises
    ------
    ConfigError
        Something that can't be called.
    """

    corpus: Any = None
    neural: Any = None
    self_teacher: Any = None

    def __post_init__(self) -> None:
        for one in fields(self):
            given = as_teacher(
                getattr(self, one.name), one.name if one.name == "self_teacher" else f"{one.name} teacher"
            )
            object.__setattr__(self, one.name, given)

    def __iter__(self) -> Iterator[tuple[str, Teacher]]:
        """(name, teacher) of those there are."""
        for name, one in (("corpus", self.corpus), ("neural", self.neural), ("self", self.self_teacher)):
            if one is not None:
                yield name, one

    @property
    def names(self) -> frozenset[str]:
        """Those there are, of "corpus", "neural" and "self"."""
        return frozenset(name for name, _ in self)

    @property
    def vocab_size(self) -> int | None:
        """The smallest vocabulary of them; None where none is known."""
        return min((one.vocab_size for _, one in self if one.vocab_size is not None), default=None)

    def only(self, names: frozenset[str]) -> Teachers:
        """Those of these names."""
        absent = {"self_teacher" if name == "self" else name: None for name in self.names - names}
        return replace(self, **absent)

    def describe(self) -> dict[str, dict[str, Any]]:
        """By name what each says of itself."""
        return {name: one.describe() for name, one in self}
