"""Students that are more than a model of transformers: with a hashed table of n-grams beside the token embedding, or
with the corpus inside of what they say.

To import this package is to register them with transformers: `AutoModelForCausalLM.from_pretrained` then loads them.
"""

from corpus_teacher.students.inside import Residual, add_residual, make_mixture, make_residual, mix_in
from corpus_teacher.students.model import (
    CorpusStudent,
    CorpusStudentConfig,
    register,
    with_corpus,
    with_ngram_table,
)
from corpus_teacher.students.ngram_table import NgramTable, NgramTableSettings, make_ngram_table

__all__ = [
    "CorpusStudent",
    "CorpusStudentConfig",
    "NgramTable",
    "NgramTableSettings",
    "Residual",
    "add_residual",
    "make_mixture",
    "make_ngram_table",
    "make_residual",
    "mix_in",
    "register",
    "with_corpus",
    "with_ngram_table",
]
