"""The oracle: plain Python twins of the engine, its counts and its estimators, sharing no code with them."""

from corpus_index.reference.engine import ReferenceIndex

__all__ = ["ReferenceIndex"]
