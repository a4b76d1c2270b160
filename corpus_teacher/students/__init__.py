"""Students that are more than a model of transformers: with a hashed table of n-grams beside the token embedding.

To import this package is to register them with transformers: `AutoModelForCausalLM.from_pretrained` then loads them.
"""

from corpus_teacher.students.model import CorpusStudent, CorpusStudentConfig, register, with_ngram_table
from corpus_teacher.students.ngram_table import NgramTable, NgramTableSettings, make_ngram_table

__all__ = [
    "CorpusStudent",
    "CorpusStudentConfig",
    "NgramTable",
    "NgramTableSettings",
    "make_ngram_table",
    "register",
    "with_ngram_table",
]
