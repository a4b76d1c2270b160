"""What the pre-training corpus itself says about the next token, used as a soft-target teacher.

Here are the names that a training loop needs: the corpus and its text (`open_corpus`, `trace`), teachers
(`CorpusTeacher`, `NeuralTeacher`, `CachedTeacher`) and their batches (`TeacherCollator`), targets and losses
(`SoftTargets`, `soft_cross_entropy`, `blended_cross_entropy`, `fused_linear_blended_cross_entropy`), who teaches what
(`make_policy`, `blended_loss`), and transformers' Trainer with all of it (`DistillationTrainer`, `DistillationConfig`),
whose finished students `load_student` gives back. They are loaded when they are first asked for: `import
corpus_teacher` itself costs nothing and never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus_teacher.analysis.corpus import open_corpus
    from corpus_teacher.analysis.trace import trace
    from corpus_teacher.blend import blended_loss, make_policy
    from corpus_teacher.generation import CorpusMixture
    from corpus_teacher.losses import blended_cross_entropy, fused_linear_blended_cross_entropy, soft_cross_entropy
    from corpus_teacher.neural import CachedTeacher, NeuralTeacher
    from corpus_teacher.remote import RemoteTeacher
    from corpus_teacher.targets.soft import SoftTargets
    from corpus_teacher.teacher import CorpusTeacher, TeacherCollator
    from corpus_teacher.training import DistillationConfig, DistillationTrainer, load_student

__version__ = "0.1.0"

_HOMES = {
    "CachedTeacher": "corpus_teacher.neural",
    "CorpusMixture": "corpus_teacher.generation",
    "CorpusTeacher": "corpus_teacher.teacher",
    "DistillationConfig": "corpus_teacher.training",
    "DistillationTrainer": "corpus_teacher.training",
    "NeuralTeacher": "corpus_teacher.neural",
    "RemoteTeacher": "corpus_teacher.remote",
    "SoftTargets": "corpus_teacher.targets.soft",
    "TeacherCollator": "corpus_teacher.teacher",
    "blended_cross_entropy": "corpus_teacher.losses",
    "blended_loss": "corpus_teacher.blend",
    "fused_linear_blended_cross_entropy": "corpus_teacher.losses",
    "load_student": "corpus_teacher.training",
    "make_policy": "corpus_teacher.blend",
    "open_corpus": "corpus_teacher.analysis.corpus",
    "soft_cross_entropy": "corpus_teacher.losses",
    "trace": "corpus_teacher.analysis.trace",
}

__all__ = [
    "CachedTeacher",
    "CorpusMixture",
    "CorpusTeacher",
    "DistillationConfig",
    "DistillationTrainer",
    "NeuralTeacher",
    "RemoteTeacher",
    "SoftTargets",
    "TeacherCollator",
    "__version__",
    "blended_cross_entropy",
    "blended_loss",
    "fused_linear_blended_cross_entropy",
    "load_student",
    "make_policy",
    "open_corpus",
    "soft_cross_entropy",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
