"""What the pre-training corpus itself says about the next token, used as a soft-target teacher.

The names below are loaded when they are first asked for: `import corpus_teacher` itself costs nothing and
never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus_teacher.losses import soft_cross_entropy
    from corpus_teacher.targets.soft import SoftTargets
    from corpus_teacher.teacher import CorpusTeacher

__version__ = "0.1.0"

_HOMES = {
    "CorpusTeacher": "corpus_teacher.teacher",
    "open_corpus": "corpus_teacher.analysis.corpus",
    "SoftTargets": "corpus_teacher.targets.soft",
    "soft_cross_entropy": "corpus_teacher.losses",
}

__all__ = ["CorpusTeacher", "SoftTargets", "__version__", "open_corpus", "soft_cross_entropy"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
