"""Language models that generate with the corpus: a mixture by evidence, and draft tokens for assisted decoding."""

from corpus_teacher.generation.drafting import CorpusDrafter, Draft
from corpus_teacher.generation.mixing import CorpusLogitsProcessor, CorpusMixer
from corpus_teacher.generation.mixture import CorpusMixture, Likelihood

__all__ = ["CorpusDrafter", "CorpusLogitsProcessor", "CorpusMixer", "CorpusMixture", "Draft", "Likelihood"]
