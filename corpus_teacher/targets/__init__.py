"""What a teacher says of a batch, as types: flat and mixed soft targets, dense logits, and changes of them."""

from corpus_teacher.targets.dense import DenseTargets
from corpus_teacher.targets.mixed import AnyTargets, MixedTargets, RowTable
from corpus_teacher.targets.soft import SoftTargets

__all__ = ["AnyTargets", "DenseTargets", "MixedTargets", "RowTable", "SoftTargets"]
