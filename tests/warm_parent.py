"""What the parent of warm children has imported (`tests/warm.py`); it asks none of it to do anything."""

import contextlib
import gc

import transformers
from transformers import LlamaForCausalLM, Trainer  # noqa: F401  # lazy: the names are what loads them

import corpus_teacher.cli.main
import corpus_teacher.neural
import corpus_teacher.study.measuring
import corpus_teacher.training.command

with contextlib.suppress(ModuleNotFoundError):  # the extra may be missing
    import corpus_teacher.serve  # noqa: F401

transformers.AutoTokenizer  # noqa: B018
gc.collect()
gc.freeze()
