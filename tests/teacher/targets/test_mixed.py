"""Targets in mixed form: the whole flat ones, on their way through loaders and losses."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_index import CorpusIndex, build_index
from torch import Tensor
from torch.utils.data import DataLoader

import corpus_teacher.losses.rows as rows_module
from corpus_teacher.blend import apply_policy, make_policy
from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import ConfigError, TargetError
from corpus_teacher.losses import (
    blended_cross_entropy,
    forward_kl,
    fused_linear_soft_cross_entropy,
    generalized_jsd,
    reverse_kl,
    soft_cross_entropy,
)
from corpus_teacher.targets.mixed import MixedTargets
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher, TeacherCollator

VOCAB, LENGTH = 42, 30
STARTS = [0, 3000, 7000]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    """Six documents of few tokens, so that short contexts are heavy."""
    rng = np.random.default_rng(1)
    tokens = (rng.geometric(0.06, 6 * 3000) % 40).astype(np.uint16)
    path = tmp_path_factory.mktemp("mixed") / "index"
    return build_index(tokens, path, doc_starts=np.arange(0, 18001, 3000), vocab_size=VOCAB)


def taught(index: CorpusIndex, estimator: str, leave_out: str | None) -> tuple[MixedTargets, Tensor]:
    """Targets in mixed form, and the whole of them, dense."""
    teacher = CorpusTeacher(index, estimator=estimator, max_order=3, leave_out=leave_out)
    tokens = index.tokens.astype(np.int64)
    rows = np.stack([tokens[start : start + LENGTH] for start in STARTS])
    mixed = teacher.mixed(rows, positions=STARTS).with_table(teacher.row_table())
    following = np.full_like(rows, -1)
    following[:, :-1] = rows[:, 1:]
    options = {"estimator": estimator, "max_order": 3, "leave_out": leave_out, "positions": STARTS}
    whole = index.smoothed_targets(rows, following, top_k=VOCAB, shortlist=None, **options)
    flat = SoftTargets.from_arrays(whole.offsets, whole.token_ids, whole.probs, whole.rest, whole.base)
    return mixed, flat.dense()


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("leave_out", ["self", "document"])
@pytest.mark.parametrize("estimator", ["witten-bell", "modified-kneser-ney"])
def test_rows_are_read_where_they_lie_or_written_out(
    index: CorpusIndex, estimator: str, leave_out: str, written_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if written_out:  # as on an accelerator
        monkeypatch.setattr(rows_module.MixedRows, "_reads_rows", False)
    mixed, dense = taught(index, estimator, leave_out)
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(mixed.num_positions, VOCAB + 3, generator=generator, dtype=torch.float64)
    scale = torch.rand(mixed.num_positions, generator=generator, dtype=torch.float64)
    rows = rows_module.rows_of(mixed, torch.float64)
    lo, hi = 11, mixed.num_positions - 5
    chunk = values[lo:hi].clone()
    expected = (dense.double()[lo:hi] * chunk[:, :VOCAB]).sum(1)
    assert rows.expectation(chunk, lo, hi).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    rows.subtract_(chunk, scale[lo:hi], lo, hi)
    expected = values[lo:hi].clone()
    expected[:, :VOCAB] -= scale[lo:hi, None] * dense.double()[lo:hi]
    assert torch.allclose(chunk, expected, atol=1e-6)


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("estimator", ["witten-bell", "modified-kneser-ney"])
def test_mixed_is_whole(index: CorpusIndex, estimator: str, leave_out: str | None) -> None:
    mixed, expected = taught(index, estimator, leave_out)
    assert mixed.rows.shape[0] > 0
    assert mixed.num_positions == len(mixed) == len(STARTS) * LENGTH
    assert torch.allclose(mixed.dense(), expected, atol=1e-6)
    assert torch.allclose(mixed.dense(7, 23), expected[7:23], atol=1e-6)
    assert torch.allclose(mixed.dense().sum(1), torch.ones(len(mixed)), atol=2e-6)
    entropy = -torch.special.xlogy(expected, expected).sum(1)
    assert torch.allclose(mixed.entropy(), torch.where(mixed.valid, entropy, 0), atol=1e-4)
    mask = torch.arange(len(mixed)) % 3 == 1
    assert torch.allclose(mixed.select(mask).dense(), expected[mask], atol=1e-6)


@pytest.mark.parametrize("leave_out", ["self", "document"])
@pytest.mark.parametrize("estimator", ["witten-bell", "modified-kneser-ney"])
def test_losses_are_the_dense_ones(index: CorpusIndex, estimator: str, leave_out: str) -> None:
    mixed, expected = taught(index, estimator, leave_out)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(len(mixed), VOCAB + 3, generator=generator, requires_grad=True)
    logs = logits.log_softmax(-1)[:, :VOCAB]
    counted = mixed.valid.float()
    dense = -(expected * logs).sum(1)
    loss = soft_cross_entropy(logits, mixed)
    reference = (dense * counted).sum() / counted.sum()
    assert torch.allclose(loss, reference, atol=1e-5)
    (actual,) = torch.autograd.grad(loss, logits)
    (wanted,) = torch.autograd.grad(reference, logits)
    assert torch.allclose(actual, wanted, atol=1e-6)
    labels = torch.randint(0, VOCAB, (len(mixed),), generator=generator)
    blend = blended_cross_entropy(logits, labels, mixed, corpus_weight=0.3, reduction="none").loss
    hard = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    share = 0.3 * counted
    assert torch.allclose(blend, (1 - share) * hard + share * dense, atol=1e-5)
    kl = forward_kl(logits, mixed, reduction="none")
    entropy = -torch.special.xlogy(expected, expected).sum(1)
    assert torch.allclose(kl, (dense - entropy) * counted, atol=1e-4)


def test_divergences_and_the_fused_loss_take_mixed_targets(index: CorpusIndex) -> None:
    mixed, expected = taught(index, "witten-bell", "self")
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(len(mixed), VOCAB, generator=generator)
    q = logits.softmax(-1)
    counted = mixed.valid.float()
    reverse = (q * (q.log() - expected.log())).sum(1) * counted
    assert torch.allclose(reverse_kl(logits, mixed, reduction="none"), reverse, atol=1e-4)
    middle = 0.5 * (q + expected)
    jsd = 0.5 * (expected * (expected.log() - middle.log())).sum(1) + 0.5 * (q * (q.log() - middle.log())).sum(1)
    assert torch.allclose(generalized_jsd(logits, mixed, beta=0.5, reduction="none"), jsd * counted, atol=1e-5)
    hidden = torch.randn(len(mixed), 8, generator=generator)
    weight = torch.randn(VOCAB, 8, generator=generator)
    fused = fused_linear_soft_cross_entropy(hidden, weight, mixed)
    assert torch.allclose(fused, soft_cross_entropy(hidden @ weight.T, mixed), atol=1e-5)


def test_a_batch_finds_its_table(index: CorpusIndex, tmp_path: Path) -> None:
    teacher = CorpusTeacher(index, max_order=3, leave_out="self")
    windows = TokenWindows(index.tokens, LENGTH, shuffle=False)
    plain = next(iter(DataLoader(windows, 4, collate_fn=TeacherCollator(teacher, form="mixed"))))["soft_targets"]
    worker = next(iter(DataLoader(windows, 4, num_workers=1, collate_fn=TeacherCollator(teacher, form="mixed"))))[
        "soft_targets"
    ]
    table = teacher.row_table()
    assert teacher.row_table() is table  # made once
    assert CorpusTeacher(index, leave_out="self").row_table() is table
    for batch in (plain, worker, plain.to("cpu"), pickle.loads(pickle.dumps(plain))):
        assert batch.table is None
        assert batch.rows.shape[0] > 0
        assert torch.equal(batch.dense(), plain.with_table(table).dense())
    assert pickle.loads(pickle.dumps(plain.with_table(table))).table is None
    assert "references=" in repr(plain)
    other = CorpusTeacher(
        build_index(np.arange(9, dtype=np.uint16) % 3, tmp_path / "other", vocab_size=VOCAB), max_order=3
    )
    with pytest.raises(TargetError, match=r"another teacher's"):
        plain.with_table(other.row_table()).dense()
    with pytest.raises(ConfigError, match=r"form is 'dense'"):
        TeacherCollator(teacher, form="dense")


def test_targets_whose_teacher_is_gone(index: CorpusIndex) -> None:
    targets = CorpusTeacher(index, max_order=3, leave_out="self").mixed(index.tokens[:LENGTH].astype(np.int64))
    assert targets.dense().shape == (LENGTH, VOCAB)  # the targets hold on to what they need
    alone = replace(targets, source=None)
    with pytest.raises(TargetError, match=r"came without their row table, and no teacher of this process has it"):
        alone.dense()


@pytest.mark.parametrize("leave_out", ["self", "document"])
def test_policies_take_the_mixed_form(index: CorpusIndex, leave_out: str) -> None:
    mixed, expected = taught(index, "witten-bell", leave_out)
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(0, VOCAB, (len(mixed),), generator=generator)
    assert torch.allclose(mixed.probability_of(labels), expected[torch.arange(len(mixed)), labels], atol=1e-6)
    logits = torch.randn(len(mixed), VOCAB, generator=generator, requires_grad=True)
    policy = make_policy(
        {
            "corpus": {"weight": 0.6, "evidence": [{"by": "entropy", "low": 0.0, "high": 4.0}]},
            "routing": {"share": 0.2},
            "complementary": 0.5,
        }
    )
    actual = apply_policy(policy, 0, logits, labels, corpus=mixed, reduction="none")
    weights, log_q = actual.blend.weights, logits.log_softmax(-1)
    assert bool((weights[:, 1] > 0).any())
    target = weights[:, 1, None] * expected + weights[:, 4, None] * mixed.base
    target[torch.arange(len(mixed)), labels] += weights[:, 0]
    known = torch.where(mixed.valid, expected[torch.arange(len(mixed)), labels], 0)
    rows = -(target * log_q).sum(1) * (1 - 0.5 * known)
    assert torch.allclose(actual.loss, rows, atol=1e-5)
    for by in ("top1_agreement", "overlap"):
        asks = make_policy({"corpus": {"weight": 0.5, "evidence": [{"by": by, "low": 0, "high": 1}]}})
        with pytest.raises(ConfigError, match="needs flat targets"):
            apply_policy(asks, 0, logits, labels, corpus=mixed, neural=logits.detach())


def test_all_tokens_in_flat_form_are_the_mixed_ones(tmp_path: Path) -> None:
    """top_k is the bound, whatever the lists of heavy contexts hold."""
    rng = np.random.default_rng(2)
    tokens = (rng.geometric(0.02, 20_000) % 300).astype(np.uint16)
    index = build_index(tokens, tmp_path / "index", vocab_size=300)
    rows = tokens[:200].reshape(4, 50).astype(np.int64)
    flat = CorpusTeacher(index, top_k=300, leave_out=None, max_order=3)(rows)
    assert int(flat.offsets.diff().max()) > 128
    assert not flat.cut_mass.any()
    exact = CorpusTeacher(index, leave_out=None, max_order=3).mixed(rows)
    torch.testing.assert_close(flat.dense(), exact.dense(), atol=1e-6, rtol=1e-4)
