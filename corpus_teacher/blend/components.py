"""What may teach a position, what each of them says in this batch, and why a position is taught as it is.

The components are the hard label, the corpus teacher, a neural teacher, the student itself (an average or an earlier
checkpoint of it), and the base distribution of the corpus. Each is silent at some positions. Shape letters: Q
positions (= B · T), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from torch import Tensor

from corpus_teacher.errors import TargetError
from corpus_teacher.losses import IGNORE_INDEX
from corpus_teacher.targets import AnyTargets, DenseTargets, MixedTargets, SoftTargets

COMPONENTS = ("hard", "corpus", "neural", "self", "base")
"""Who may teach; the columns of a blend's weights, in this order."""


class Reason(IntEnum):
    """Why a position is taught as it is.

    NONE: it has no label and counts in no loss. HARD … BASE: as the policy asks, and this component has the most
    weight beside the label (HARD: none has any). CORPUS_SHORTER: by the corpus, from a shorter context than the policy
    asks for. …_FALLBACK: the component that should teach is silent here, and this one teaches in its place. ROUTED:
    one of the most certain positions, left to the hard label.
    """

    NONE = 0
    HARD = 1
    CORPUS = 2
    NEURAL = 3
    SELF = 4
    BASE = 5
    CORPUS_SHORTER = 6
    HARD_FALLBACK = 7
    CORPUS_FALLBACK = 8
    NEURAL_FALLBACK = 9
    SELF_FALLBACK = 10
    BASE_FALLBACK = 11
    ROUTED = 12

    @property
    def label(self) -> str:
        """Its name in logs: "corpus-shorter"."""
        return self.name.lower().replace("_", "-")


Targets = AnyTargets
"""What a teacher says of a batch."""

CorpusTargets = SoftTargets | MixedTargets
"""What the corpus teacher says of it."""


@dataclass(frozen=True, eq=False)
class Components:
    """All that is known of a batch before its positions are given to teachers.

    Parameters
    ----------
    labels : Tensor of shape (B, T) or (Q,), int64
        The token that follows each position (`corpus_teacher.losses.shift_labels`); -100 where it doesn't count.
    corpus : SoftTargets or MixedTargets, optional
        Of the corpus teacher. Its base is the component "base".
    neural, self_teacher : SoftTargets, DenseTargets, or logits of shape (B, T, V) or (Q, V), optional
        Of a neural teacher, live or cached (a window that the cache lacks isn't valid), and of the student's own
        average or earlier checkpoint.
    distinct : Tensor of shape (B, T) or (Q,), optional
        ``evidence["distinct"]`` by another way.
    student : logits of shape (B, T, V) or (Q, V), optional
        Of the student, for policies that ask how certain it is.
    evidence : mapping of str to Tensor of shape (B, T) or (Q,), optional
        What policies ask of the corpus beside its targets (`CorpusTeacher.evidence`): by "distinct" the distinct
        continuations of each context.

    Raises
    ------
    TargetError
        Another number of positions than labels.
    """

    labels: Tensor
    corpus: CorpusTargets | None = None
    neural: Targets | Tensor | None = None
    self_teacher: Targets | Tensor | None = None
    distinct: Tensor | None = None
    student: Targets | Tensor | None = None
    evidence: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = self.labels.reshape(-1)
        object.__setattr__(self, "labels", labels)
        for name in ("neural", "self_teacher", "student"):
            object.__setattr__(self, name, as_targets(getattr(self, name)))
        evidence = {name: values.reshape(-1) for name, values in self.evidence.items()}
        if self.distinct is not None:
            evidence["distinct"] = self.distinct.reshape(-1)
        object.__setattr__(self, "evidence", evidence)
        object.__setattr__(self, "distinct", evidence.get("distinct"))
        names = ("corpus", "neural", "self_teacher", "student")
        for name, value in [*((name, getattr(self, name)) for name in names), *evidence.items()]:
            if value is None:
                continue
            positions = value.shape[0] if isinstance(value, Tensor) else value.num_positions
            if positions != labels.shape[0]:
                raise TargetError(
                    f"{name} has {positions} positions and labels {labels.shape[0]}: give both of one batch"
                )

    @property
    def counted(self) -> Tensor:
        """Whether each position has a label, and so counts, (Q,) bool."""
        return self.labels != IGNORE_INDEX

    def targets_of(self, name: str) -> Targets | None:
        """What "corpus", "neural", "self" or "student" says; None where it isn't given."""
        made: Targets | None = getattr(self, "self_teacher" if name == "self" else name)
        return made

    @property
    def given(self) -> tuple[str, ...]:
        """The components that there are, in the order of `COMPONENTS`."""
        there = {"hard", *(name for name in ("corpus", "neural", "self") if self.targets_of(name) is not None)}
        return tuple(name for name in COMPONENTS if name in there or (name == "base" and self.corpus is not None))


def as_targets(said: Targets | Tensor | None) -> Targets | None:
    """Logits as `DenseTargets`, all else as it is."""
    return DenseTargets(said) if isinstance(said, Tensor) else said
