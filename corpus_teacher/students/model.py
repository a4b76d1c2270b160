"""A student that is more than a model of transformers: one with a table of n-grams beside its embedding.

`CorpusStudent` wraps any causal model, and behaves as one of transformers: `generate` with its caches,
`save_pretrained`, `Trainer`. Its folder says the type "corpus_teacher_student", which transformers alone doesn't know,
so that nobody loads half of it by mistake: `load_student` does, or any `from_pretrained` after this module is imported.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from torch import Tensor

from corpus_teacher.errors import ConfigError
from corpus_teacher.students.ngram_table import NgramTable, NgramTableSettings, make_ngram_table, segments_of

MODEL_TYPE = "corpus_teacher_student"


class CorpusStudentConfig(transformers.PretrainedConfig):
    """Of a `CorpusStudent`; what it doesn't have itself is the inner model's (`text_config`).

    Parameters
    ----------
    text_config : PretrainedConfig or dict
        Of the model inside.
    ngram_table : dict, optional
        As `make_ngram_table` reads it.
    end_token : int, optional
        A token after which n-grams begin anew.
    """

    model_type = MODEL_TYPE
    sub_configs = {"text_config": transformers.AutoConfig}  # noqa: RUF012

    def __init__(
        self, text_config: Any = None, ngram_table: Any = None, end_token: int | None = None, **options: Any
    ) -> None:
        if isinstance(text_config, dict):
            text_config = transformers.AutoConfig.for_model(**text_config)
        self.text_config = text_config if text_config is not None else transformers.AutoConfig.for_model("llama")
        self.ngram_table = ngram_table
        self.end_token = end_token
        super().__init__(**options)

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("text_config")
        if inner is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(inner, name)


class CorpusStudent(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A causal model of transformers with a table of n-grams beside its token embedding.

    Parameters
    ----------
    config : CorpusStudentConfig
    model : PreTrainedModel, optional
        The model inside; made of the configuration by default.

    Attributes
    ----------
    model : PreTrainedModel
    table : NgramTable or None

    Raises
    ------
    ConfigError
        A table that doesn't fit the model.
    """

    config_class = CorpusStudentConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    main_input_name = "input_ids"

    def __init__(self, config: CorpusStudentConfig, model: transformers.PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.model = transformers.AutoModelForCausalLM.from_config(config.text_config) if model is None else model
        said = make_ngram_table(config.ngram_table or False)
        self.table = None
        if said is not None:
            width = self.model.get_input_embeddings().weight.shape[1]
            self.table = NgramTable(said, width, config.text_config.vocab_size)
        accepted = inspect.signature(self.model.forward).parameters
        self._keeps_logits = "logits_to_keep" in accepted
        self._cache_name = "cache" if "cache" in accepted else "past_key_values"  # transformers 5.2x renamed it
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, NgramTable):
            module.reset_parameters()

    def get_input_embeddings(self) -> torch.nn.Module:
        """Of the model inside."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        """Of the model inside."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> torch.nn.Module:
        """Of the model inside."""
        return self.model.get_output_embeddings()

    def set_output_embeddings(self, value: torch.nn.Module) -> None:
        """Of the model inside."""
        self.model.set_output_embeddings(value)

    @property
    def reach(self) -> int:
        """Tokens before a position that are looked at beside those in a cache."""
        return 0 if self.table is None else self.table.reach

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        context_ids: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        **options: Any,
    ) -> Any:
        """The model's outputs.

        Parameters
        ----------
        input_ids : Tensor of shape (B, T), int64
        attention_mask, position_ids, labels, logits_to_keep
            As of any causal model of transformers. n-grams stay inside of segments that position ids, a mask of numbers
            of documents, or cu_seq_lens_q tell; a mask of four dimensions tells none.
        context_ids : Tensor of shape (B, P + T), int64, optional
            The last tokens before those of input_ids, and those; negative ones are padding. Needed where a cache holds
            the tokens before: `generate` gives it.
        cache, past_key_values
            Of earlier tokens, by the name that this transformers has for it.
        **options
            Of the model inside.

        Raises
        ------
        ConfigError
            A cache without context_ids.
        """
        kept = past_key_values if cache is None else cache
        if context_ids is None and self.reach and _cached(kept):
            raise ConfigError(
                "there is a cache of earlier tokens, which n-grams reach back to: give them as context_ids, or call "
                "generate"
            )
        if kept is not None:
            options[self._cache_name] = kept
        if self._keeps_logits:
            options["logits_to_keep"] = logits_to_keep
        read = {"input_ids": input_ids}
        if self.table is not None:
            ids, segments = self._segments(input_ids, attention_mask, position_ids, context_ids, options)
            embedded = self.model.get_input_embeddings()(input_ids)
            read = {"inputs_embeds": embedded + self.table(ids, segments, input_ids.shape[1]).to(embedded.dtype)}
        if labels is not None:
            options["labels"] = labels
        return self.model(**read, attention_mask=attention_mask, position_ids=position_ids, **options)

    def _segments(
        self, input_ids: Tensor, mask: Any, position_ids: Tensor | None, context_ids: Tensor | None, options: Any
    ) -> tuple[Tensor, Tensor]:
        """The tokens that are known, (B, P + T), and the numbers of their segments."""
        ids, documents = input_ids, None
        if context_ids is not None:
            ids = context_ids
        elif isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape == input_ids.shape:
            ids, documents = torch.where(mask > 0, input_ids, -1), mask
        return ids, segments_of(
            ids,
            position_ids=position_ids,
            documents=documents,
            edges=options.get("cu_seq_lens_q"),
            end_token=self.config.end_token,
        )

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Any = None, **kwargs: Any
    ) -> dict[str, Any]:  # transformers looks at these names
        """The model's, and the tokens before those that are read."""
        made: dict[str, Any] = self.model.prepare_inputs_for_generation(
            input_ids, attention_mask=attention_mask, **kwargs
        )
        known = input_ids
        if isinstance(attention_mask, Tensor) and attention_mask.shape == input_ids.shape:
            known = torch.where(attention_mask > 0, input_ids, -1)
        made["context_ids"] = known[:, -(self.reach + made["input_ids"].shape[1]) :]
        return made


def _cached(cache: Any) -> bool:
    """Whether a cache holds tokens."""
    length = getattr(cache, "get_seq_length", None)
    return cache is not None and (length is None or int(length()) > 0)


def with_ngram_table(
    model: transformers.PreTrainedModel, table: NgramTableSettings, end_token: int | None = None
) -> CorpusStudent:
    """A model with a table of n-grams beside its embedding: at first its outputs are the same.

    Parameters
    ----------
    model : PreTrainedModel
        A causal model; it is used, not copied.
    table : NgramTableSettings
    end_token : int, optional
        A token after which n-grams begin anew: the index's end of a document.

    Raises
    ------
    ConfigError
        A table that doesn't fit the model.

    Examples
    --------
    >>> config = transformers.AutoConfig.for_model(
    ...     "llama", vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    ... )
    >>> student = with_ngram_table(transformers.AutoModelForCausalLM.from_config(config), NgramTableSettings(rows=10))
    >>> student.num_parameters() - student.model.num_parameters()  # 2 orders, 10 rows, 8 numbers; a gate for each order
    162
    """
    attention = getattr(model.config, "_attn_implementation", None)  # else it would be chosen anew, for both
    config = CorpusStudentConfig(
        model.config, ngram_table=table.to_dict(), end_token=end_token, attn_implementation=attention
    )
    return CorpusStudent(config, model)


def register() -> None:
    """Tell transformers of the type, so that `AutoModelForCausalLM` loads it; done when the package is imported."""
    transformers.AutoConfig.register(MODEL_TYPE, CorpusStudentConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(CorpusStudentConfig, CorpusStudent, exist_ok=True)


register()
