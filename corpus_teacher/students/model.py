"""A student that is more than a model of transformers: with a table of n-grams beside its embedding, or with the corpus
itself in what it says.

`CorpusStudent` wraps any causal model, and behaves as one of transformers: `generate` with its caches,
`save_pretrained`, `Trainer`. Its folder says the type "corpus_teacher_student", which transformers alone doesn't know,
so that nobody loads half of it by mistake: `load_student` does, or any `from_pretrained` after this module is imported.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import transformers
from torch import Tensor

from corpus_teacher.blend import Adaptive, AdaptiveWeights, MixtureWeights
from corpus_teacher.blend.adaptive import bucket_numbers
from corpus_teacher.errors import ConfigError, CorpusIndexError, InputError
from corpus_teacher.students.inside import Residual, add_residual, context_tokens, corpus_targets, mix_in
from corpus_teacher.students.ngram_table import NgramTable, NgramTableSettings, make_ngram_table, segments_of
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher

MODEL_TYPE = "corpus_teacher_student"
ESTIMATOR_FILE = "corpus_estimator.json"

Way: TypeAlias = Residual | MixtureWeights | Adaptive | float
"""How the corpus is put inside of a student."""


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
    corpus : dict, optional
        Of a student with the corpus inside: "index", its path, "fingerprint", "top_k", and "residual" or "mixture".
    """

    model_type = MODEL_TYPE
    sub_configs = {"text_config": transformers.AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        text_config: Any = None,
        ngram_table: Any = None,
        end_token: int | None = None,
        corpus: Any = None,
        **options: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = transformers.AutoConfig.for_model(**text_config)
        self.text_config = text_config if text_config is not None else transformers.AutoConfig.for_model("llama")
        self.ngram_table = ngram_table
        self.end_token = end_token
        self.corpus = corpus
        super().__init__(**options)

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("text_config")
        if inner is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(inner, name)


class CorpusStudent(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A causal model of transformers with a table of n-grams beside its token embedding, or the corpus in its output.

    Parameters
    ----------
    config : CorpusStudentConfig
    model : PreTrainedModel, optional
        The model inside; made of the configuration by default.

    Attributes
    ----------
    model : PreTrainedModel
    table : NgramTable or None
    corpus : CorpusTeacher or None
        Of new text: what is asked where a batch brings no targets.
    gate : Parameter of shape (1,) or None
        g of a residual.
    mixture : MixtureWeights or None
        λ of a mixture.
    follows : Adaptive or None
        How λ follows the evidence while `DistillationTrainer` trains.

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
        self.corpus: CorpusTeacher | None = None
        self.mixture: MixtureWeights | None = None
        self.follows: Adaptive | None = None
        self.gate: torch.nn.Parameter | None = None
        inside = config.corpus or {}
        if "residual" in inside:
            self._add_gate(Residual(**inside["residual"]))
        if "mixture" in inside:
            told = inside["mixture"]
            self.mixture = MixtureWeights.from_dict({**told, "edges": dict(told["edges"])})
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
        of_table = 0 if self.table is None else self.table.reach
        return of_table if self.corpus is None else max(of_table, context_tokens(self.corpus))

    @property
    def has_corpus(self) -> bool:
        """Whether the corpus is a part of what it says."""
        return self.gate is not None or self.mixture is not None

    def put_in(self, teacher: CorpusTeacher, way: Way) -> None:
        """Put the corpus inside, in place of another one that may be there.

        Parameters
        ----------
        teacher : CorpusTeacher
            Of the student's own tokens; it leaves out nothing when it is asked from here.
        way : Residual, MixtureWeights, float or Adaptive
            As in `with_corpus`.

        Raises
        ------
        ConfigError
            An index with more tokens than the student outputs.
        """
        outputs = int(self.config.get_text_config().vocab_size)
        if teacher.vocab_size > outputs:
            raise ConfigError(
                f"the student has {outputs:,} outputs and the index {teacher.vocab_size:,} tokens: index the corpus "
                "with the student's tokenizer"
            )
        self.corpus = _Shared(teacher.for_new_text())
        self.gate, self.mixture, self.follows = None, None, None
        if isinstance(way, Residual):
            self._add_gate(way)
        elif isinstance(way, Adaptive):
            self.follows, self.mixture = way, AdaptiveWeights(way).mixture()
        else:
            self.mixture = way if isinstance(way, MixtureWeights) else MixtureWeights.constant(way)
        self.config.corpus = self._described()

    def _add_gate(self, residual: Residual) -> None:
        self.gate = torch.nn.Parameter(torch.full((1,), float(residual.gate)), requires_grad=residual.trained)

    def _described(self) -> dict[str, Any] | None:
        """What the configuration says of the corpus inside, as it is now."""
        if self.corpus is None:
            return self.config.corpus
        index = self.corpus.index
        told = {"index": str(index.path.absolute()), "fingerprint": index.fingerprint, "top_k": self.corpus.top_k}
        if self.mixture is not None:
            weights = self.mixture.to_dict()
            edges = [[name, values] for name, values in weights["edges"].items()]  # transformers sorts what is a dict
            return {**told, "mixture": {**weights, "edges": edges}}
        assert self.gate is not None
        return {**told, "residual": {"gate": float(self.gate.detach()), "trained": self.gate.requires_grad}}

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
        corpus: SoftTargets | None = None,
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
        corpus : SoftTargets, optional
            Of a student with the corpus inside: what the corpus says of the B · T positions. In training it has to be
            given, the texts' own documents left out; otherwise the index is asked.
        **options
            Of the model inside.

        Raises
        ------
        ConfigError
            A cache without context_ids; training without the corpus' targets.
        InputError
            The corpus that belongs inside isn't open.
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
        if labels is not None and not self.has_corpus:
            options["labels"] = labels
        outputs = self.model(**read, attention_mask=attention_mask, position_ids=position_ids, **options)
        if not self.has_corpus:
            return outputs
        if corpus is None:
            columns = {"attention_mask": attention_mask, "position_ids": position_ids}
            columns["cu_seq_lens"] = options.get("cu_seq_lens_q")
            corpus = self._asked(input_ids, context_ids, columns)
        return self._with_corpus(outputs, corpus, input_ids.shape[1], logits_to_keep, labels)

    def _asked(self, input_ids: Tensor, context_ids: Tensor | None, columns: dict[str, Any]) -> SoftTargets:
        """What the corpus inside says of the B · T positions of input_ids."""
        if self.corpus is None:
            raise InputError("the student's index isn't open: load the student with load_student(folder, index=…)")
        if self.training:
            raise ConfigError(
                "the corpus is inside of the student, and its own index knows the text that it is trained on: give "
                "corpus=teacher(batch), with documents left out, or call eval() to ask it"
            )
        if context_ids is None:
            mask = columns["attention_mask"]
            if isinstance(mask, Tensor) and mask.ndim != 2:
                columns = {**columns, "attention_mask": None}
            given = {name: one for name, one in columns.items() if one is not None}
            return self.corpus(input_ids, **given)
        rows, length = context_ids.cpu().numpy().astype(np.int64), input_ids.shape[1]
        if length == 1:
            return corpus_targets(self.corpus, rows, only_last=True)
        said = corpus_targets(self.corpus, rows)
        return said.take(_last(torch.arange(rows.size).view(rows.shape), length))

    def _with_corpus(
        self, outputs: Any, corpus: SoftTargets, length: int, kept: int | Tensor, labels: Tensor | None
    ) -> Any:
        """The outputs, with the corpus in their logits."""
        own = outputs.logits
        if own.shape[1] < length:
            places = torch.arange(corpus.num_positions, device=corpus.device).view(-1, length)
            places = places[:, kept.to(places.device)] if isinstance(kept, Tensor) else places[:, -own.shape[1] :]
            corpus = corpus.take(places.reshape(-1))
        corpus = corpus.to(own.device)
        flat = own.reshape(-1, own.shape[-1])
        if self.gate is not None:
            made = add_residual(flat, corpus, self.gate)
        else:
            assert self.mixture is not None
            shares = torch.from_numpy(self.mixture.weights).to(own.device)
            made = mix_in(flat, corpus, shares[bucket_numbers(self.mixture.buckets, corpus)].float())
        outputs.logits = made.view(own.shape)
        if self.training:
            outputs["student_logits"] = own  # what the student says alone
        if labels is not None:
            following = labels[:, 1:].reshape(-1).to(made.device)
            told = outputs.logits[:, :-1].reshape(following.shape[0], -1)
            outputs.loss = torch.nn.functional.cross_entropy(told, following, ignore_index=-100)
        return outputs

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

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> None:
        """As of any model; with the corpus inside also its fitted estimator, and the path and fingerprint of the index.

        Raises
        ------
        OutputError
            If the estimator can't be written.
        """
        self.config.corpus = self._described()
        super().save_pretrained(save_directory, *arguments, **options)
        if self.corpus is not None:
            self.corpus.estimator.save(Path(save_directory) / ESTIMATOR_FILE)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *arguments: Any, **options: Any) -> Any:
        """As of any model; with the corpus inside its index is opened.

        Parameters
        ----------
        pretrained_model_name_or_path : path
        *arguments, **options
            As of any model, and index, a CorpusIndex or its path: where it is now; by default where it was.

        Raises
        ------
        InputError
            No index there, or another one than the student was trained with.
        """
        folder, index = pretrained_model_name_or_path, options.pop("index", None)
        loaded = super().from_pretrained(folder, *arguments, **options)
        student = loaded[0] if isinstance(loaded, tuple) else loaded
        if student.config.corpus:
            student.corpus = _Shared(_opened(student.config.corpus, Path(folder), index))
        return loaded


class _Shared(CorpusTeacher):
    """A teacher that copies of its student share: an index is opened once."""

    def __init__(self, teacher: CorpusTeacher) -> None:
        self.__dict__.update(teacher.__dict__)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def _opened(told: dict[str, Any], folder: Path, index: Any) -> CorpusTeacher:
    """The corpus that a configuration tells of."""
    where = told["index"] if index is None else index
    try:
        teacher = CorpusTeacher(
            Path(where) if isinstance(where, str) else where,
            estimator=str(folder / ESTIMATOR_FILE),
            max_order=None,
            leave_out=None,
            top_k=int(told.get("top_k", 64)),
        )
    except CorpusIndexError as error:
        raise InputError(
            f"the index that belongs inside of the student can't be used: {error}; say where it is now: "
            "load_student(folder, index=…)"
        ) from error
    if teacher.index.fingerprint != told.get("fingerprint"):
        raise InputError(
            f"{teacher.index.path} is another index than the one that the student was trained with: give index=…"
        )
    return teacher


def _last(places: Tensor, length: int) -> Tensor:
    return places[:, -length:].reshape(-1)


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
    return CorpusStudent(_config_of(model, ngram_table=table.to_dict(), end_token=end_token), model)


def with_corpus(student: transformers.PreTrainedModel, teacher: CorpusTeacher, way: Way) -> CorpusStudent:
    """A student with the corpus inside of what it says; see `corpus_teacher.students.inside`.

    Parameters
    ----------
    student : PreTrainedModel
        A causal model, or a `CorpusStudent` with a table; it is used, not copied.
    teacher : CorpusTeacher
        The one that it is trained with.
    way : Residual, MixtureWeights, float or Adaptive
        The corpus' log-probabilities added, or a mixture of these weights; a number is the student's weight everywhere,
        an `Adaptive` says how the weights follow the evidence in training.

    Raises
    ------
    ConfigError
        An index with more tokens than the student outputs.
    """
    if not isinstance(student, CorpusStudent):
        student = CorpusStudent(_config_of(student), student)
    student.put_in(teacher, way)
    return student


def _config_of(model: transformers.PreTrainedModel, **options: Any) -> CorpusStudentConfig:
    attention = getattr(model.config, "_attn_implementation", None)  # else it would be chosen anew, for both
    return CorpusStudentConfig(model.config, attn_implementation=attention, **options)


def register() -> None:
    """Tell transformers of the type, so that `AutoModelForCausalLM` loads it; done when the package is imported."""
    transformers.AutoConfig.register(MODEL_TYPE, CorpusStudentConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(CorpusStudentConfig, CorpusStudent, exist_ok=True)


register()
