"""Synthetic corpora: documents sampled from a teacher, filtered, and written for training with hard labels.

Sequence-level distillation (Kim and Rush 2016) trains a student on what its teacher writes; simple self-distillation
(arXiv 2604.01193) trains a model on what it wrote itself at a training temperature and truncation. The teacher is a
language model, the corpus teacher of an index, or a mixture of both at every token.
"""

from corpus_teacher.synthesis.command import SynthesisOptions, synthesize
from corpus_teacher.synthesis.filters import Filters, judge, report_of
from corpus_teacher.synthesis.measures import copied, longest_run, match_lengths, repeated_share
from corpus_teacher.synthesis.prompts import Prompts, document_prompts
from corpus_teacher.synthesis.samplers import CorpusSampler, MixedSampler, NeuralSampler
from corpus_teacher.synthesis.sampling import SampledDocument, sample_documents
from corpus_teacher.synthesis.writing import SynthesisSummary, Target, WritingOptions, write_synthetic_corpus

__all__ = [
    "CorpusSampler",
    "Filters",
    "MixedSampler",
    "NeuralSampler",
    "Prompts",
    "SampledDocument",
    "SynthesisOptions",
    "SynthesisSummary",
    "Target",
    "WritingOptions",
    "copied",
    "document_prompts",
    "judge",
    "longest_run",
    "match_lengths",
    "repeated_share",
    "report_of",
    "sample_documents",
    "synthesize",
    "write_synthetic_corpus",
]
