"""Neural teachers: live models, caches of what they said, and the student's own average.

`NeuralTeacher` asks a causal language model of transformers; `write_cache` keeps what it says of windows of text, and
`CachedTeacher` reads it back by content; `EmaTeacher` is a moving average of the student. All are called like a
`CorpusTeacher`: (B, T) token ids in, `SoftTargets` out. `distillkit` and `megatron` exchange caches with others.
"""

from corpus_teacher.neural.cache_command import cache_teacher
from corpus_teacher.neural.cached import CachedTeacher
from corpus_teacher.neural.caching import CacheSummary, write_cache
from corpus_teacher.neural.ema import EmaCallback, EmaTeacher
from corpus_teacher.neural.formats import SparseRows, TargetFormat, soft_targets, sparsify
from corpus_teacher.neural.importing import import_rows
from corpus_teacher.neural.live import NeuralTeacher
from corpus_teacher.neural.pretrained import find_smollm2, load_model, load_model_tokenizer

__all__ = [
    "CacheSummary",
    "CachedTeacher",
    "EmaCallback",
    "EmaTeacher",
    "NeuralTeacher",
    "SparseRows",
    "TargetFormat",
    "cache_teacher",
    "find_smollm2",
    "import_rows",
    "load_model",
    "load_model_tokenizer",
    "soft_targets",
    "sparsify",
    "write_cache",
]
