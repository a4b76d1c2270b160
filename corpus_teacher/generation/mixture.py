"""A causal language model with the corpus mixed in: generate, perplexity, evaluation harnesses, save and load."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor, nn

from corpus_teacher.blend import MixtureWeights, fit_weights
from corpus_teacher.data.opening import index_tokenizer
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.files import read_json, write_json
from corpus_teacher.generation.drafting import CorpusDrafter
from corpus_teacher.generation.mixing import CorpusLogitsProcessor, CorpusMixer, Ints, evidence_of
from corpus_teacher.neural.pretrained import load_model
from corpus_teacher.targets.soft import SoftTargets

SETTINGS_FILE = "corpus_mixture.json"
ESTIMATOR_FILE = "corpus_estimator.json"

_WINDOW = 512
Text = str | npt.ArrayLike


@dataclass(frozen=True)
class Likelihood:
    """How well model, corpus and mixture predict a text.

    Parameters
    ----------
    model_nats, corpus_nats, mixture_nats : float
        Per token.
    tokens : int
    """

    model_nats: float
    corpus_nats: float
    mixture_nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """Of the mixture."""
        return float(np.exp(self.mixture_nats))


class CorpusMixture(nn.Module):
    """A causal language model of transformers that knows the corpus: ``λ · model + (1 − λ) · corpus``.

    Parameters
    ----------
    model : transformers.PreTrainedModel or path
    index : CorpusIndex or path
        Of the model's own tokens.
    weights : MixtureWeights or float
        λ, the model's share, fitted by `fit` or given.
    estimator, max_order, top_k
        See `CorpusMixer`.

    Raises
    ------
    ConfigError
        The index has more tokens than the model outputs.
    InputError, IndexFormatError, QueryError

    Notes
    -----
    Attributes that it lacks are the model's (`config`, `device`, …). Nothing is trained: `forward` gives no gradient to
    the corpus, but passes the model's on.

    Examples
    --------
    >>> mixture = CorpusMixture("my-model", "my-index")  # doctest: +SKIP
    >>> mixture.fit(["text that neither of them has read"])  # doctest: +SKIP
    >>> mixture.generate(input_ids, max_new_tokens=40)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        index: Any,
        weights: MixtureWeights | float = 0.5,
        *,
        estimator: Any = "witten-bell",
        max_order: int | None = 5,
        top_k: int = 64,
    ) -> None:
        super().__init__()
        self.model = load_model(model) if isinstance(model, (str, Path)) else model
        self.mixer = CorpusMixer(index, weights, estimator=estimator, max_order=max_order, top_k=top_k)
        outputs = int(self.model.config.get_text_config().vocab_size)
        if self.mixer.vocab_size > outputs:
            raise ConfigError(
                f"the model has {outputs:,} outputs and the index {self.mixer.vocab_size:,} tokens: "
                "index the corpus with the model's tokenizer"
            )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("model", "mixer"):
                raise
            return getattr(super().__getattr__("model"), name)

    @property
    def weights(self) -> MixtureWeights:
        """λ by evidence."""
        return self.mixer.weights

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> transformers.modeling_outputs.CausalLMOutput:
        """Log-probabilities of the mixture at every position; with labels their cross-entropy.

        Parameters
        ----------
        input_ids : Tensor of shape (B, T), int64
            Whole texts: without a cache of earlier tokens, which `generate` takes care of.
        attention_mask : Tensor of shape (B, T), optional
        labels : Tensor of shape (B, T), int64, optional
            As everywhere in transformers: not shifted, −100 where they don't count.

        Returns
        -------
        CausalLMOutput
            logits (B, T, V'), whose softmax is the mixture, and loss.
        """
        if options.get("past_key_values") is not None:
            raise ConfigError("forward takes whole texts: give them without past_key_values, or call generate")
        options = {**options, "use_cache": False, "return_dict": True}
        logits = self.model(input_ids, attention_mask=attention_mask, **options).logits
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mixed = self._mixed(input_ids.cpu().numpy(), mask.bool().cpu().numpy(), logits)
        loss = None
        if labels is not None:
            flat = mixed[:, :-1].reshape(-1, mixed.shape[-1])
            loss = nn.functional.nll_loss(flat, labels[:, 1:].reshape(-1).to(flat.device), ignore_index=-100)
        return transformers.modeling_outputs.CausalLMOutput(loss=loss, logits=mixed)

    def _mixed(self, ids: npt.NDArray[Any], mask: npt.NDArray[np.bool_], logits: Tensor) -> Tensor:
        """Row by row, each without its padding."""
        mixed = torch.log_softmax(logits.float(), -1).clone()
        for row in range(ids.shape[0]):
            places = np.flatnonzero(mask[row])
            if places.size:
                there = torch.from_numpy(places).to(logits.device)
                targets = self.mixer.targets(ids[row, places].astype(np.int64)[None])
                mixed[row, there] = self.mixer.mix(logits[row, there], targets)
        return mixed

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        logits_processor: Sequence[Any] | None = None,
        drafter: CorpusDrafter | None = None,
        **options: Any,
    ) -> Any:
        """The model's `generate`, drawing from the mixture.

        Parameters
        ----------
        inputs : Tensor of shape (B, T), int64
            Prompts, padded on the left; `input_ids` is the same.
        attention_mask : Tensor of shape (B, T), optional
        logits_processor : sequence, optional
            More of them, after the mixture.
        drafter : CorpusDrafter, optional
            Have drafts of the corpus confirmed several tokens at a time; one prompt only. Greedy decoding gives the
            same tokens as without.
        **options
            As of transformers: max_new_tokens, do_sample, num_beams, …
        """
        ids = options.pop("input_ids", None) if inputs is None else inputs
        if ids is None:
            raise InputError("there is no prompt to go on from: give `input_ids`")
        padding = None if attention_mask is None else (attention_mask.long().cumsum(1) == 0).sum(1).tolist()
        mine = CorpusLogitsProcessor(self.mixer, padding)
        processors = transformers.LogitsProcessorList([mine, *(logits_processor or ())])
        settings = {**options, "attention_mask": attention_mask, "logits_processor": processors}
        if drafter is not None:
            return drafter.generate(self.model, ids, **settings)
        generate: Any = self.model.generate
        return generate(ids, **settings)

    def fit(self, held_out: Text | Sequence[Text], *, window: int = _WINDOW) -> MixtureWeights:
        """Fit the weights on text that neither the model nor the index has read, and use them from now on.

        Parameters
        ----------
        held_out : str, array_like of int, or a sequence of those
            Texts, or their token ids.
        window : int
            Tokens that the model sees at once.

        Returns
        -------
        MixtureWeights

        Raises
        ------
        InputError
            No token to predict, or text and an index without a tokenizer.
        """
        model, corpus, targets = self._chances(held_out, window)
        self.mixer.weights = fit_weights(model, corpus, evidence_of(targets))
        return self.mixer.weights

    def likelihood(self, text: Text | Sequence[Text], *, window: int = _WINDOW) -> Likelihood:
        """How well model, corpus and mixture predict a text, in nats per token.

        Parameters
        ----------
        text, window
            As in `fit`.

        Raises
        ------
        InputError
        """
        model, corpus, targets = self._chances(text, window)
        share = np.where(targets.valid.numpy(), self.mixer.model_share(targets).double().numpy(), 1.0)
        mixed = share * model + (1 - share) * corpus
        nats = [float(-np.log(np.maximum(one, 1e-30)).mean()) for one in (model, corpus, mixed)]
        return Likelihood(nats[0], nats[1], nats[2], int(model.size))

    @torch.no_grad()
    def _chances(
        self, text: Text | Sequence[Text], window: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], SoftTargets]:
        """What model and corpus give to each token that came, and what the corpus says there."""
        if window < 2:
            raise ConfigError(f"window is {window}: the model has to see at least 2 tokens")
        was_training = self.model.training
        self.model.eval()
        model: list[Tensor] = []
        corpus: list[Tensor] = []
        targets: list[SoftTargets] = []
        try:
            for ids in self._texts(text):
                for begin in range(0, ids.size - 1, window):
                    row = ids[None, begin : begin + window + 1]
                    tokens = torch.from_numpy(row).to(self.model.device)
                    logits = self.model(tokens[:, :-1]).logits[0].float()
                    following = tokens[0, 1:]
                    own = torch.log_softmax(logits, -1).gather(1, following[:, None])[:, 0]
                    said = self.mixer.targets(row[:, :-1])
                    known = following.cpu() < self.mixer.vocab_size
                    chance = said.probability_of(torch.where(known, following.cpu(), 0))
                    model.append(own.exp().double().cpu())
                    corpus.append(torch.where(known, chance, 0).double().clamp_min(0))
                    targets.append(said)
        finally:
            self.model.train(was_training)
        if not model:
            raise InputError("the text has no token to predict: give at least two tokens")
        return torch.cat(model).numpy(), torch.cat(corpus).numpy(), SoftTargets.concatenate(targets)

    def _texts(self, text: Text | Sequence[Text]) -> list[Ints]:
        if isinstance(text, str):
            return [index_tokenizer(self.mixer.teacher.index).encode(text).astype(np.int64)]
        if isinstance(text, (list, tuple)) and any(isinstance(one, str) or np.ndim(one) for one in text):
            return [ids for one in text for ids in self._texts(one)]
        ids = np.asarray(text)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "ui"):
            raise InputError(f"a text must be one sequence of token ids, not {ids.dtype} of shape {ids.shape}")
        return [ids.astype(np.int64)]

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write the model as transformers does, with the weights and the name of the index beside it.

        Raises
        ------
        OutputError
            If it can't be written.
        """
        folder = Path(folder)
        self.model.save_pretrained(folder, **options)
        teacher = self.mixer.teacher
        teacher.estimator.save(folder / ESTIMATOR_FILE)
        write_json(
            folder / SETTINGS_FILE,
            {
                "index": str(teacher.index.path.absolute()),
                "fingerprint": teacher.index.fingerprint,
                "top_k": teacher.top_k,
                "weights": self.weights.to_dict(),
            },
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, index: Any = None) -> CorpusMixture:
        """The mixture that `save_pretrained` wrote.

        Parameters
        ----------
        folder : path
        index : CorpusIndex or path, optional
            Where the index is now; by default where it was.

        Raises
        ------
        InputError
            If there is none.
        IndexFormatError
            If the index isn't there, or is another one.
        """
        folder = Path(folder)
        try:
            settings = read_json(folder / SETTINGS_FILE)
            where, weights = settings["index"], settings["weights"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder} holds no mixture with a corpus ({SETTINGS_FILE}): save one there") from error
        return cls(
            load_model(folder),
            index if index is not None else where,
            MixtureWeights.from_dict(weights),
            estimator=str(folder / ESTIMATOR_FILE),
            max_order=None,
            top_k=int(settings.get("top_k", 64)),
        )

    def tie_weights(self, *arguments: Any, **options: Any) -> None:
        """Of the model, for those who call it before evaluating."""
        with contextlib.suppress(AttributeError):
            self.model.tie_weights(*arguments, **options)
