"""The corpus inside of a student, against the distributions written out densely."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_index import build_index
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher import CorpusTeacher, load_student
from corpus_teacher.blend import Adaptive, MixtureWeights
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.students import (
    CorpusStudent,
    Residual,
    add_residual,
    make_mixture,
    make_residual,
    mix_in,
    with_corpus,
)
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.training import make_student

VOCAB, OUTPUTS, END, ORDER = 20, 22, 0, 3
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
EVIDENCE = MixtureWeights.from_dict(
    {
        "edges": {"match_len": [1, 3], "count": [5]},  # in this order, which isn't that of the alphabet
        "weights": [0.9, 0.6, 0.2, 0.5, 0.1, 0.3],
        "tokens": [9] * 6,
    }
)
WAYS = [Residual(0.7), Residual(1.0, trained=False), 0.4, EVIDENCE]


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    generator = np.random.default_rng(0)
    made = generator.integers(1, VOCAB, 3000)
    for t in range(2, 3000):
        if generator.random() < 0.6:
            made[t] = (made[t - 1] * 7 + made[t - 2]) % (VOCAB - 1) + 1
    made[99::100] = END
    return made


@pytest.fixture(scope="module")
def path(tokens: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inside") / "index"
    starts = np.arange(0, 3001, 100)
    build_index(
        tokens.astype(np.uint16), place, vocab_size=VOCAB, doc_starts=starts, end_of_document=END
    ).close()  # fmt: skip
    return place


@pytest.fixture(scope="module")
def teacher(path: Path) -> CorpusTeacher:
    return CorpusTeacher(path, max_order=ORDER, leave_out="document")


def student_of(teacher: CorpusTeacher, way: Any, **more: Any) -> CorpusStudent:
    return with_corpus(make_student({**SIZES, **more}, vocab_size=OUTPUTS, end_token=END), teacher, way).eval()


def ids_of(tokens: np.ndarray, rows: int = 4, length: int = 12) -> torch.Tensor:
    return torch.from_numpy(tokens[: rows * length].astype(np.int64)).view(rows, length)


def naive(logits: torch.Tensor, targets: SoftTargets, way: Any) -> torch.Tensor:
    """The whole distribution of every position, (Q, V'), in float64."""
    p = torch.zeros(logits.shape, dtype=torch.float64)
    p[:, : targets.vocab_size] = targets.dense().double()
    z = logits.double()
    if isinstance(way, Residual):
        said = (z + way.gate * p.clamp_min(1e-12).log()).softmax(-1)
    else:
        weights = way if isinstance(way, MixtureWeights) else MixtureWeights.constant(way)
        share = torch.from_numpy(
            weights({"match_len": targets.match_len.numpy(), "count": targets.context_count.numpy()})
        )[:, None]
        said = share * z.softmax(-1) + (1 - share) * p
    return torch.where(targets.valid[:, None], said, z.softmax(-1))


@given(seed=st.integers(0, 50), gate=st.sampled_from([0.0, 0.5, 1.0, 2.0]), more=st.sampled_from([0, 2]))
def test_a_residual_is_the_dense_one(
    random_targets: Callable[..., SoftTargets], seed: int, gate: float, more: int
) -> None:
    targets = random_targets(seed, invalid=True)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(targets.num_positions, targets.vocab_size + more, generator=generator)
    actual = add_residual(logits, targets, torch.tensor([gate])).softmax(-1)
    torch.testing.assert_close(actual.double(), naive(logits, targets, Residual(gate)), atol=1e-5, rtol=1e-3)


@given(seed=st.integers(0, 50), share=st.sampled_from([0.0, 0.3, 1.0]), more=st.sampled_from([0, 2]))
def test_a_mixture_is_the_dense_one(
    random_targets: Callable[..., SoftTargets], seed: int, share: float, more: int
) -> None:
    targets = random_targets(seed, invalid=True)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(targets.num_positions, targets.vocab_size + more, generator=generator)
    actual = mix_in(logits, targets, torch.full((targets.num_positions,), share))
    torch.testing.assert_close(actual.double().exp(), naive(logits, targets, share), atol=1e-6, rtol=1e-4)
    assert not actual.isnan().any()


def test_gradients_are_those_of_the_dense_forms(random_targets: Callable[..., SoftTargets]) -> None:
    targets = random_targets(3, positions=8)
    logits = torch.randn(8, targets.vocab_size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % targets.vocab_size
    dense = targets.dense().double().clamp_min(1e-12)
    made = []
    for exact in (True, False):
        z, gate = logits.double().clone().requires_grad_(), torch.tensor([0.7], dtype=torch.double, requires_grad=True)
        said = z + gate * dense.log() if exact else add_residual(z, targets, gate)
        torch.nn.functional.cross_entropy(said, labels).backward()
        made.append((z.grad, gate.grad))
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=1e-4)
    mixed = []
    for exact in (True, False):
        z = logits.clone().requires_grad_()
        said = (0.4 * z.softmax(-1) + 0.6 * dense.float()).log() if exact else mix_in(z, targets, torch.full((8,), 0.4))
        torch.nn.functional.nll_loss(said, labels).backward()
        mixed.append(z.grad)
    torch.testing.assert_close(mixed[0], mixed[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_what_it_says_is_the_definition(teacher: CorpusTeacher, tokens: np.ndarray, way: Any) -> None:
    student, ids = student_of(teacher, way), ids_of(tokens)
    own = student.model(ids).logits.reshape(-1, OUTPUTS)
    asked = teacher.for_new_text()(ids)
    expected = naive(own, asked, way)
    actual = student(ids, labels=ids)
    torch.testing.assert_close(actual.logits.softmax(-1).double().view(-1, OUTPUTS), expected, atol=1e-6, rtol=1e-3)
    following = expected.view(4, 12, OUTPUTS)[:, :-1].gather(2, ids[:, 1:, None])
    assert actual.loss.item() == pytest.approx(-following.log().mean().item(), rel=1e-4)
    left_out = teacher(ids, positions=np.arange(4) * 12)
    torch.testing.assert_close(
        student(ids, corpus=left_out).logits.softmax(-1).double().view(-1, OUTPUTS),
        naive(own, left_out, way), atol=1e-6, rtol=1e-3,
    )  # fmt: skip
    last = student(ids, logits_to_keep=2).logits
    torch.testing.assert_close(last, actual.logits[:, -2:])


@pytest.mark.parametrize("way", WAYS)
def test_a_cache_changes_nothing(teacher: CorpusTeacher, tokens: np.ndarray, way: Any) -> None:
    student, prompt = student_of(teacher, way, ngram_table={"rows": 9}), ids_of(tokens)[:2, :5]
    torch.nn.init.normal_(student.table.weight, generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": END}
    expected = student.generate(prompt, use_cache=False, **options)
    assert torch.equal(student.generate(prompt, **options), expected)
    rows = prompt
    for _ in range(10):
        rows = torch.cat([rows, student(rows).logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(rows, expected)
    padded = torch.cat([torch.full((2, 3), 5), prompt], 1)
    mask = torch.cat([torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)], 1)
    assert torch.equal(student.generate(padded, attention_mask=mask, **options)[:, 8:], expected[:, 5:])
    assert torch.equal(student.generate(prompt, num_beams=2, **options),
                       student.generate(prompt, num_beams=2, use_cache=False, **options))  # fmt: skip


@pytest.mark.parametrize("way", [Residual(0.7), EVIDENCE])
def test_it_is_saved_and_loaded(
    teacher: CorpusTeacher, path: Path, tokens: np.ndarray, tmp_path: Path, way: Any
) -> None:
    index = tmp_path / "index"
    shutil.copytree(path, index)
    student = student_of(CorpusTeacher(index, max_order=ORDER, estimator="modified-kneser-ney"), way)
    expected = student(ids_of(tokens)).logits
    student.save_pretrained(tmp_path / "student")
    assert torch.equal(load_student(tmp_path / "student").eval()(ids_of(tokens)).logits, expected)
    index.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="say where it is now"):
        load_student(tmp_path / "student")
    moved = load_student(tmp_path / "student", index=tmp_path / "moved").eval()
    assert torch.equal(moved(ids_of(tokens)).logits, expected)
    other = tmp_path / "other"
    build_index(tokens[:500].astype(np.uint16), other, vocab_size=VOCAB, end_of_document=END).close()
    with pytest.raises(InputError, match="index"):
        load_student(tmp_path / "student", index=other)


def test_training_asks_for_the_targets(teacher: CorpusTeacher, tokens: np.ndarray) -> None:
    student = student_of(teacher, Residual()).train()
    with pytest.raises(ConfigError, match="knows the text that it is trained on"):
        student(ids_of(tokens))
    said = student(ids_of(tokens), corpus=teacher(ids_of(tokens), positions=np.arange(4) * 12))
    assert said["student_logits"].shape == said.logits.shape
    said.logits.logsumexp(-1).sum().backward()
    assert student.gate is not None
    assert student.gate.grad is not None
    assert not [name for name, _ in student_of(teacher, Residual(trained=False)).named_parameters() if name == "gate"
                and _.requires_grad]  # fmt: skip


def test_a_copy_shares_the_index(teacher: CorpusTeacher, tokens: np.ndarray) -> None:
    student = student_of(teacher, EVIDENCE)
    copied = copy.deepcopy(student)
    assert copied.corpus is student.corpus
    assert torch.equal(copied(ids_of(tokens)).logits, student(ids_of(tokens)).logits)


def test_another_way_takes_the_place_of_the_first(teacher: CorpusTeacher) -> None:
    student = student_of(teacher, Residual())
    again = with_corpus(student, teacher, Adaptive(first=0.25))
    assert again is student
    assert again.gate is None
    assert set(again.mixture.weights.tolist()) == {0.25}  # type: ignore[union-attr]
    assert "gate" not in again.state_dict()


@pytest.mark.parametrize(
    ("make", "said", "named"),
    [
        (make_residual, "yes", "residual is 'yes'"),
        (make_residual, {"gat": 1}, "did you mean 'gate'"),
        (make_residual, {"gate": "one"}, "gate is 'one'"),
        (make_residual, {"trained": 1}, "trained is 1"),
        (make_mixture, "entropy", "mixture is 'entropy'"),
        (make_mixture, True, "mixture is True"),
        (make_mixture, 1.5, "mixture is 1.5"),
        (make_mixture, {"memry": 5}, "did you mean 'memory'"),
    ],
)
def test_what_puts_nothing_inside(make: Callable[[Any], Any], said: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make(said)


def test_an_index_with_more_tokens(teacher: CorpusTeacher) -> None:
    with pytest.raises(ConfigError, match="19 outputs and the index 20 tokens"):
        with_corpus(make_student(SIZES, vocab_size=19), teacher, 0.5)
