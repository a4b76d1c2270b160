"""Names that settings, caches and the help of commands list; nothing is imported here, so help comes at once."""

CACHE_KINDS = ("top-k", "top-p", "sample", "systematic", "hidden")
"""What a cache can keep of a neural teacher's distributions (`corpus_teacher.neural.formats`): the one list of it."""

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""How a cache can store a number (`corpus_teacher.neural.coding`)."""

EXPORTS = ("megatron", "verl", "tinker", "distillkit")
"""Whose files of top-k targets can be written (`corpus_teacher.neural.corpus_export`)."""
