"""Students: causal language models of transformers, with random weights or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.students import make_ngram_table, with_ngram_table

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


_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
)


def complete_student(table: Mapping[str, Any]) -> dict[str, Any]:
    """A student's table with what its size suggests, where it leaves sizes out.

    Parameters
    ----------
    table : mapping
        "model_type" ("llama" by default) and any of its settings.

    Returns
    -------
    dict
        The table, and of a Llama without a hidden size all of `DEFAULT_STUDENT`. With a hidden size H: H / 64 layers (2
        to 32), heads of 32, 64 or 128 dimensions, a feed-forward part of 3 · H, experts as wide as that; where the
        model itself takes one from another, or all sizes are given, nothing is added.

    Examples
    --------
    >>> made = complete_student({"hidden_size": 64})
    >>> made["num_hidden_layers"], made["num_attention_heads"], made["intermediate_size"]
    (2, 2, 192)
    """
    made = {"model_type": "llama", **table}
    kind = made["model_type"]
    try:
        plain = transformers.AutoConfig.for_model(kind)
    except Exception:  # told by who makes the model
        return made
    name_of = {one: plain.attribute_map.get(one, one) for one in _SIZES}

    def given(size: str) -> Any:
        return made.get(name_of[size], made.get(size))

    if kind == "llama" and given("hidden_size") is None:
        some = any(given(size) is not None for size in _SIZES)
        made = {**({"hidden_size": DEFAULT_STUDENT["hidden_size"]} if some else DEFAULT_STUDENT), **made}
    hidden = given("hidden_size")
    if not isinstance(hidden, int) or hidden < 1:
        return made
    try:
        sized = transformers.AutoConfig.for_model(kind, **{name_of["hidden_size"]: hidden})
    except Exception:
        return made

    def is_free(size: str) -> bool:
        """Whether the model has this size, doesn't take it from the hidden size, and the table leaves it out."""
        default = getattr(plain, name_of[size], None)
        return given(size) is None and isinstance(default, int) and getattr(sized, name_of[size], None) == default

    suggested = {
        "num_hidden_layers": max(2, min(32, hidden // 64)),
        "num_attention_heads": _heads(hidden),
        "intermediate_size": 3 * hidden,
    }
    made |= {name_of[size]: value for size, value in suggested.items() if is_free(size)}
    for size in ("moe_intermediate_size", "shared_expert_intermediate_size"):
        if is_free(size) and isinstance(given("intermediate_size"), int):
            made[size] = given("intermediate_size")
    return _fit_heads(made, name_of)


def _heads(hidden: int) -> int:
    """Heads of 32 dimensions up to 256, of 64 up to 1,024, else of 128; an even number of dimensions each."""
    size = 32 if hidden <= 256 else 64 if hidden <= 1024 else 128
    fitting = (heads for heads in range(max(1, hidden // size), 0, -1) if hidden % (2 * heads) == 0)
    return next(fitting, 1)


def _fit_heads(made: dict[str, Any], name_of: Mapping[str, str]) -> dict[str, Any]:
    """Groups of heads and their width, where the model's own defaults don't go with the number of heads."""
    try:
        settings = {key: value for key, value in made.items() if key != "model_type"}
        config = transformers.AutoConfig.for_model(made["model_type"], **settings)
        hidden, heads = (int(getattr(config, name_of[one])) for one in ("hidden_size", "num_attention_heads"))
        groups, width = (getattr(config, one, None) for one in ("num_key_value_heads", "head_dim"))
    except Exception:  # told by who makes the model
        return made
    if isinstance(groups, int) and heads % groups and "num_key_value_heads" not in made:
        made["num_key_value_heads"] = heads
    if isinstance(width, int) and width * heads != hidden and "head_dim" not in made and hidden % heads == 0:
        made["head_dim"] = hidden // heads
    return made


def make_student(
    config: str | Mapping[str, Any] | transformers.PretrainedConfig | None = None,
    *,
    vocab_size: int,
    seed: int = 0,
    end_token: int | None = None,
) -> transformers.PreTrainedModel:
    """Make a causal language model with random weights.

    Parameters
    ----------
    config : str, mapping or PretrainedConfig, optional
        A model type of transformers ("gpt2"), a folder with a config.json, a mapping with "model_type" and
        any of its settings (`complete_student` adds what they leave out), or a ready config; by default
        `DEFAULT_STUDENT`, a small Llama. A mapping's "ngram_table" is true or the settings of a hashed table of n-grams
        beside the token embedding (`corpus_teacher.students.NgramTableSettings`).
    vocab_size : int
        V of the index.
    seed : int
        Of the weights; the global random state stays as it is.
    end_token : int, optional
        The index's end of a document, after which the n-grams of a table begin anew.

    Returns
    -------
    PreTrainedModel
        With a table a `CorpusStudent`, whose other weights are those of the student without one.

    Raises
    ------
    ConfigError
        A config that transformers doesn't know or can't make a causal model of.
    """
    config = dict(DEFAULT_STUDENT) if config is None else config
    table = None
    if isinstance(config, Mapping) and "ngram_table" in config:
        table = make_ngram_table(config["ngram_table"])
        config = {key: value for key, value in config.items() if key != "ngram_table"}
    try:
        if isinstance(config, Mapping):
            settings = complete_student(config)
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
            student = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:  # of transformers and of the hub's checks of a config, which wrap the reason
        told = error.__cause__ or error
        reason = (str(told).strip() or type(told).__name__).splitlines()[0]
        raise ConfigError(f"no student can be made of this config: {reason}") from error
    return student if table is None else with_ngram_table(student, table, end_token)


def load_student(path: str | Path, *, vocab_size: int | None = None, index: Any = None) -> transformers.PreTrainedModel:
    """A student to go on with or to ask: a folder that `save_pretrained` or a training wrote, in float32.

    Parameters
    ----------
    path : str or Path
    vocab_size : int, optional
        V of the index; refused where the student has fewer tokens.
    index : CorpusIndex or path, optional
        Of a student with the corpus inside: where the index is now; by default where it was.

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
    student = load_model(path, dtype=torch.float32, index=index)
    if vocab_size is not None and student.config.vocab_size < vocab_size:
        raise ConfigError(
            f"the student in {path} has {student.config.vocab_size} tokens and the index {vocab_size}: "
            "give one with the index's vocabulary"
        )
    return student
