"""What documents are sampled from: each step is the teacher's own distribution after the whole text so far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_index import CorpusIndex, build_index

from corpus_teacher.data import ByteTokenizer, Tokenizer
from corpus_teacher.data.drawing import DrawOptions
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.neural import NeuralTeacher, TargetFormat
from corpus_teacher.synthesis import CorpusSampler, MixedSampler, NeuralSampler, sample_documents

from ..neural_models import make_model

V, END = 8, 0
KEPT = TargetFormat(k=4)  # of its targets, which sampling does without
CORPUS = [[3, 1, 2, 1, 2, 0], [3, 3, 2, 1, 0], [4, 2, 2, 5, 0]]


class EndsWithZero(Tokenizer):
    """Stands in for a tokenizer of 8 tokens, of which 0 ends documents."""

    def __init__(self) -> None:
        self.vocab_size, self.spec = V, "tiny"

    @property
    def end_of_document(self) -> int:  # type: ignore[override]
        return END

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return "tiny"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    starts = np.cumsum([0, *map(len, CORPUS)])
    path = tmp_path_factory.mktemp("samplers") / "index"
    return build_index(np.concatenate(CORPUS), path, doc_starts=starts, vocab_size=V, end_of_document=END)


def neural_sampler(kind: str = "llama", **options: Any) -> NeuralSampler:
    settings = {"max_position_embeddings": 40} if kind == "llama" else {}
    model = make_model(kind, vocab_size=V, seed=3, **settings)
    return NeuralSampler(NeuralTeacher(model, tokenizer=EndsWithZero(), kept=KEPT), **options)


def corpus_sampler(index: CorpusIndex, **options: Any) -> CorpusSampler:
    return CorpusSampler(index, **{"max_order": 3, **options})


def of_model(sampler: NeuralSampler, text: list[int]) -> np.ndarray:
    """By reading the whole text anew."""
    with torch.no_grad():
        logits = sampler.teacher.model(input_ids=torch.tensor([[END, *text]])).logits[0, -1]
    return logits.double().softmax(-1).numpy()


def of_corpus(index: CorpusIndex, text: list[int], **options: Any) -> np.ndarray:
    """By writing out the target after the whole text."""
    options = {"estimator": "witten-bell", "max_order": 3, **options}
    targets = index.smoothed_targets([[END, *text]], top_k=V, shortlist=None, only_last=True, **options)
    p = targets.rest[0] * targets.base.astype(np.float64)
    np.add.at(p, targets.token_ids, targets.probs)
    return p


def cases(index: CorpusIndex) -> dict[str, tuple[Any, Callable[[list[int]], np.ndarray]]]:
    llama, gpt2, corpus = neural_sampler(), neural_sampler("gpt2"), corpus_sampler(index)
    return {
        "llama": (llama, lambda text: of_model(llama, text)),
        "gpt2": (gpt2, lambda text: of_model(gpt2, text)),
        "corpus": (corpus, lambda text: of_corpus(index, text)),
        "unbounded": (corpus_sampler(index, max_order=None), lambda text: of_corpus(index, text, max_order=None)),
        "mixed": (
            MixedSampler(corpus, llama, corpus_weight=0.3),
            lambda text: 0.3 * of_corpus(index, text) + 0.7 * of_model(llama, text),
        ),
    }


@pytest.mark.parametrize("name", ["llama", "gpt2", "corpus", "unbounded", "mixed"])
def test_the_confidence_is_that_of_the_whole_text(index: CorpusIndex, name: str) -> None:
    """Prompts of many lengths, documents that end at many places, so that rows leave the batch and the cache."""
    sampler, distribution = cases(index)[name]
    prompts = [[], [3], [3, 1, 2], [4, 2], [], [1, 1, 1, 1], [3, 3]] * 9
    documents = sample_documents(sampler, prompts, length=8, draw=DrawOptions(1.4), generator=np.random.default_rng(5))
    assert len({document.tokens.size for document in documents}) > 2
    assert {document.ended for document in documents} == {True, False}
    for prompt, document in zip(prompts, documents, strict=True):
        assert document.prompt.tolist() == prompt
        drawn = [*document.tokens.tolist(), *[END] * document.ended]
        assert len(drawn) == 8 or document.ended
        assert END not in document.tokens
        logs = [np.log(distribution([*prompt, *drawn[:at]])[token]) for at, token in enumerate(drawn)]
        assert document.confidence == pytest.approx(np.mean(logs), abs=2e-5)


@pytest.mark.parametrize("name", ["llama", "corpus", "mixed"])
@pytest.mark.parametrize(
    "draw", [DrawOptions(), DrawOptions(0.5), DrawOptions(top_k=3), DrawOptions(1.3, top_p=0.6)], ids=str
)
def test_tokens_are_drawn_from_the_teacher(index: CorpusIndex, name: str, draw: DrawOptions) -> None:
    """Chi-square of 4,000 second tokens, under the 1 − 1e-6 quantile for 7 degrees of freedom (40.5)."""
    sampler, distribution = cases(index)[name]
    documents = sample_documents(sampler, [[3]] * 4000, length=1, draw=draw, generator=np.random.default_rng(2))
    tokens = [END if document.ended else int(document.tokens[0]) for document in documents]
    expected = distribution([3]) ** (1 / draw.temperature)
    if draw.top_k is not None:
        expected[expected < np.sort(expected)[-draw.top_k] * (1 - 1e-9)] = 0.0
    if draw.top_p is not None:
        order = np.argsort(-expected)
        share = np.cumsum(expected[order]) / expected.sum()
        expected[order[np.searchsorted(share, draw.top_p) + 1 :]] = 0.0
    expected = 4000 * expected / expected.sum()
    actual = np.bincount(tokens, minlength=V)
    assert (actual[expected == 0] == 0).all()
    held = expected > 0
    assert ((actual[held] - expected[held]) ** 2 / expected[held]).sum() < 40.5


def test_a_weight_of_one_or_zero_is_one_teacher_alone(index: CorpusIndex) -> None:
    rows = np.array([[3, 1], [4, 2]])
    llama, corpus = neural_sampler(), corpus_sampler(index)
    for weight, expected in (
        (0.0, [of_model(llama, [3, 1]), of_model(llama, [4, 2])]),
        (1.0, [of_corpus(index, [3, 1]), of_corpus(index, [4, 2])]),
    ):
        actual = MixedSampler(corpus, llama, corpus_weight=weight).begin(rows).probs().numpy()
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_a_seed_repeats_a_batch_and_the_model_goes_on_training(index: CorpusIndex) -> None:
    sampler = cases(index)["mixed"][0]
    sampler.neural.teacher.model.train()
    runs = [sample_documents(sampler, [()] * 5, length=9, generator=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    first, second, other = ([document.tokens.tolist() for document in run] for run in runs)
    assert first == second != other
    assert sampler.neural.teacher.model.training


def test_explicit_tokens_leave_the_rest_to_the_base(index: CorpusIndex) -> None:
    sampler = corpus_sampler(index, explicit=1)
    assert (np.diff(sampler.begin(np.array([[3, 1]])).targets().offsets) <= 1).all()
    documents = sample_documents(sampler, [[3]] * 50, length=6, generator=np.random.default_rng(0))
    assert all(np.isfinite(document.confidence) for document in documents)


def test_an_index_without_ends_needs_prompts(tmp_path: Path) -> None:
    with build_index(np.array([1, 2, 2, 3, 2, 1]), tmp_path / "bare", vocab_size=5) as bare:
        sampler = CorpusSampler(bare, max_order=2)
        with pytest.raises(ConfigError, match="no end-of-document token that a text could begin after: give prompts"):
            sample_documents(sampler, [()], length=3, generator=np.random.default_rng(0))
        (document,) = sample_documents(sampler, [[1]], length=5, generator=np.random.default_rng(0))
        assert document.tokens.size == 5
        assert not document.ended


def test_a_model_without_an_end_needs_prompts_or_a_start() -> None:
    teacher = NeuralTeacher(make_model(vocab_size=V), kept=KEPT)
    generator = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="give prompts, or a start token"):
        sample_documents(NeuralSampler(teacher), [()], length=3, generator=generator)
    (document,) = sample_documents(NeuralSampler(teacher, start_token=5), [()], length=3, generator=generator)
    assert document.tokens.size == 3
    with pytest.raises(ConfigError, match="start token 8 is outside of the 8 tokens"):
        NeuralSampler(teacher, start_token=8)


def test_what_does_not_fit_is_refused(index: CorpusIndex) -> None:
    generator = np.random.default_rng(0)
    llama = neural_sampler()
    with pytest.raises(ConfigError, match=r"a prompt of 10 tokens and 30 drawn ones are more than the 39"):
        sample_documents(llama, [[1] * 10], length=30, generator=generator)
    with pytest.raises(ConfigError, match="length is 0"):
        sample_documents(llama, [()], length=0, generator=generator)
    with pytest.raises(InputError, match="token 8 of a prompt is outside of the vocabulary of 8"):
        sample_documents(corpus_sampler(index), [[1], [8]], length=1, generator=generator)
    with pytest.raises(ConfigError, match=r"weight of the corpus is 1.5"):
        MixedSampler(corpus_sampler(index), llama, corpus_weight=1.5)
    with pytest.raises(ConfigError, match="explicit is 0"):
        corpus_sampler(index, explicit=0)
    other = NeuralSampler(NeuralTeacher(make_model(vocab_size=257), tokenizer=ByteTokenizer()))
    with pytest.raises(ConfigError, match="give both the same tokenizer"):
        MixedSampler(corpus_sampler(index), other)
    assert sample_documents(llama, [], length=3, generator=generator) == []
