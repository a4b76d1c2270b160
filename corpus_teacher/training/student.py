"""Students: causal language models of transformers, with random weights or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from corpus_teacher.errors import ConfigError, InputError

DEFAULT_STUDENT = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
"""A student of a million parameters, most of them the embeddings of its tokens."""


def make_student(
    config: str | Mapping[str, Any] | transformers.PretrainedConfig | None = None,
    *,
    vocab_size: int,
    seed: int = 0,
) -> transformers.PreTrainedModel:
    """Make a causal language model with random weights.

    Parameters
    ----------
    config : str, mapping or PretrainedConfig, optional
        A model type of transformers ("gpt2"), a folder with a config.json, a mapping with "model_type" and
        any of its settings, or a ready config; by default `DEFAULT_STUDENT`, a small Llama.
    vocab_size : int
        V of the index.
    seed : int
        Of the weights; the global random state stays as it is.

    Returns
    -------
    PreTrainedModel

    Raises
    ------
    ConfigError
        A config that transformers doesn't know or can't make a causal model of.
    """
    config = dict(DEFAULT_STUDENT) if config is None else config
    try:
        if isinstance(config, Mapping):
            settings = dict(config)
            config = transformers.AutoConfig.for_model(settings.pop("model_type", "llama"), **settings)
        elif isinstance(config, str):
            known = config in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
            config = (
                transformers.AutoConfig.for_model(config) if known else transformers.AutoConfig.from_pretrained(config)
            )
        config.vocab_size = vocab_size
        config.use_cache = False
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):  # ids of another vocabulary
            setattr(config, name, None)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:  # of transformers and of the hub's checks of a config, which wrap the reason
        told = error.__cause__ or error
        reason = (str(told).strip() or type(told).__name__).splitlines()[0]
        raise ConfigError(f"no student can be made of this config: {reason}") from error


def load_student(path: str | Path, *, vocab_size: int) -> transformers.PreTrainedModel:
    """A student to go on with: a folder that `save_pretrained` or a training wrote, in float32.

    Parameters
    ----------
    path : str or Path
    vocab_size : int
        V of the index; refused where the student has fewer tokens.

    Returns
    -------
    PreTrainedModel

    Raises
    ------
    InputError
        No such model.
    ConfigError
        A student with another vocabulary.
    """
    from corpus_teacher.neural import load_model

    if not Path(path).is_dir():
        raise InputError(f"there is no folder {str(path)!r} to load a student from")
    student = load_model(path, dtype=torch.float32)
    if student.config.vocab_size < vocab_size:
        raise ConfigError(
            f"the student in {path} has {student.config.vocab_size} tokens and the index {vocab_size}: "
            "give one with the index's vocabulary"
        )
    return student
