"""What is measured of a student, against naive twins in plain Python."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_index import CorpusIndex, build_index
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.data import TokenFile, TokenWindows
from corpus_teacher.data.held_out import HeldOut
from corpus_teacher.study import metrics, probes
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.training import make_student

VOCAB, END, LENGTH = 7, 0, 8
STUDENT = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, VOCAB, 300)
    tokens[49::50] = END
    path = tmp_path_factory.mktemp("study") / "index"
    return build_index(tokens, path, vocab_size=VOCAB, end_of_document=END)


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    generator = np.random.default_rng(1)
    tokens = generator.integers(1, VOCAB, 60)
    ends = np.array([10, 11, 30, 59])  # a document of one token among them
    tokens[ends] = END
    return HeldOut(TokenFile(tokens.astype(np.uint16), np.concatenate([[0], ends + 1]), 70), END)


@pytest.fixture(scope="module")
def student() -> Any:
    return make_student(STUDENT, vocab_size=VOCAB, seed=1).eval()


def naive(student: Any, index: CorpusIndex, held_out: HeldOut, order: int) -> dict[str, list[float]]:
    """One token at a time, with the window that its row has."""
    told: dict[str, list[float]] = {
        name: [] for name in ("nats", "brier", "confidence", "right", "count", "match", "new")
    }
    for batch in held_out.batches(length=LENGTH, rows=1, overlap=LENGTH // 4):
        row, following = batch.input_ids[0].tolist(), batch.next_ids[0].tolist()
        for t, label in enumerate(following):
            if label < 0:
                continue
            with torch.no_grad():
                probs = student(input_ids=torch.tensor([row[: t + 1]])).logits[0, -1].double().softmax(-1).tolist()
            told["nats"].append(-math.log(probs[label]))
            told["brier"].append(sum((p - (token == label)) ** 2 for token, p in enumerate(probs)))
            told["confidence"].append(max(probs))
            told["right"].append(probs.index(max(probs)) == label)
            context = row[: t + 1]
            if END in context:
                context = context[len(context) - context[::-1].index(END) :]
            found = [index.count(context[len(context) - n :]) for n in range(1, len(context) + 1)]
            told["match"].append(
                next((n for n in range(len(context), 0, -1) if _followed(index, context[len(context) - n :])), 0)
            )
            told["count"].append(_followed(index, context[len(context) - order :]) if len(found) >= order else 0)
            pairs = list(pairwise(row[: t + 1]))
            told["new"].append(0 if (row[t], label) in pairs else 1 if label in row[: t + 1] else 2)
    return told


def _followed(index: CorpusIndex, ngram: list[int]) -> int:
    """Occurrences that a token of the same document follows."""
    return sum(index.count([*ngram, token]) for token in range(VOCAB))


def test_score_is_the_naive_one(student: Any, index: CorpusIndex, held_out: HeldOut) -> None:
    expected = naive(student, index, held_out, order=2)
    context = metrics.corpus_context(index, 2)
    for rows in (1, 3, 100):
        actual = metrics.score(student, held_out, context, length=LENGTH, rows=rows)
        assert len(actual.nats) == 60
        np.testing.assert_allclose(actual.nats, expected["nats"], rtol=1e-4)
        np.testing.assert_allclose(actual.brier, expected["brier"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(actual.confidence, expected["confidence"], rtol=1e-4)
        assert actual.right.tolist() == expected["right"]
        assert actual.match_len.tolist() == expected["match"]
        assert actual.context_count.tolist() == expected["count"]
        assert actual.copied.tolist() == expected["new"]
    counts = np.bincount(index.tokens, minlength=VOCAB)
    assert actual.token_frequency.tolist() == counts[held_out.corpus.tokens].tolist()


def test_the_summary_adds_up(student: Any, index: CorpusIndex, held_out: HeldOut) -> None:
    scored = metrics.score(student, held_out, metrics.corpus_context(index, 2), length=LENGTH)
    told = metrics.summarize(scored, held_out.corpus.doc_starts, 70, VOCAB)
    assert told["tokens"] == 60
    assert told["nats"] == pytest.approx(scored.nats.mean())
    assert told["bits_per_byte"] == pytest.approx(scored.nats.sum() / math.log(2) / 70)
    assert [count for _, count in told["documents"]] == [11, 1, 19, 29]
    starts = held_out.corpus.doc_starts
    assert told["documents"][2][0] == pytest.approx(scored.nats[starts[2] : starts[3]].sum())
    for buckets in told["buckets"].values():
        assert sum(bucket["tokens"] for bucket in buckets) == 60
        filled = [bucket for bucket in buckets if bucket["tokens"]]
        assert sum(bucket["tokens"] * bucket["nats"] for bucket in filled) == pytest.approx(scored.nats.sum())
        assert all(bucket["nats"] is None for bucket in buckets if not bucket["tokens"])
    assert [bucket["label"] for bucket in told["buckets"]["match_len"]][-3:] == ["6–8", "9–16", "17+"]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_is_the_naive_one(pairs: list[tuple[float, bool]]) -> None:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in pairs:
        bins.setdefault(min(14, int(confidence * 15)), []).append((confidence, right))
    expected = sum(abs(sum(c for c, _ in some) - sum(r for _, r in some)) for some in bins.values()) / len(pairs)
    confidence, right = np.array([c for c, _ in pairs]), np.array([r for _, r in pairs])
    actual, reliability = metrics.calibration(confidence, right)
    assert actual == pytest.approx(expected, abs=1e-12)
    assert sum(one["tokens"] for one in reliability) == len(pairs)
    assert 0 <= metrics.adaptive_ece(confidence, right) <= 1


def test_calibration_of_known_cases() -> None:
    assert metrics.calibration(np.full(4, 0.75), np.array([True, True, True, False]))[0] == pytest.approx(0)
    assert metrics.calibration(np.full(4, 0.75), np.zeros(4, bool))[0] == pytest.approx(0.75)
    # two halves of one bin whose errors cancel: the bins of equal numbers see them
    confidence, right = np.array([0.95] * 15 + [0.96] * 15), np.array([True] * 15 + [True] * 15)
    assert metrics.adaptive_ece(confidence, right) == pytest.approx(0.045)


def test_fidelity_is_that_of_the_dense_targets(student: Any, index: CorpusIndex, held_out: HeldOut) -> None:
    teacher = CorpusTeacher(index, max_order=2, leave_out=None, top_k=VOCAB)
    told = probes.fidelity(student, teacher, held_out, length=LENGTH, tokens=10**6, rows=1)
    kl, agree, nats = [], [], []
    for batch in held_out.batches(length=LENGTH, rows=1, overlap=LENGTH // 4):
        dense = teacher(batch.input_ids, starts_document=batch.starts_document).dense().double()
        with torch.no_grad():
            log_q = student(input_ids=torch.from_numpy(batch.input_ids)).logits[0].double().log_softmax(-1)
        for t, label in enumerate(batch.next_ids[0].tolist()):
            if label >= 0:
                kl.append(float((torch.special.xlogy(dense[t], dense[t]) - dense[t] * log_q[t]).sum()))
                agree.append(int(dense[t].argmax()) == int(log_q[t].argmax()))
                nats.append(-math.log(dense[t, label]))
    assert told["tokens"] == 60
    assert told["kl_nats"] == pytest.approx(np.mean(kl), rel=1e-4)
    assert told["top1"] == pytest.approx(np.mean(agree))
    assert told["teacher_nats"] == pytest.approx(np.mean(nats), rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_the_likeliest_token(random_targets: Any, seed: int) -> None:
    targets: SoftTargets = random_targets(seed, positions=9)
    assert probes.likeliest(targets).tolist() == targets.dense().argmax(1).tolist()


class Copier(torch.nn.Module):
    """Says what followed the last occurrence of the token, and knows nothing of new ones."""

    device = torch.device("cpu")

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, input_ids: torch.Tensor, **options: Any) -> Any:
        logits = torch.zeros(*input_ids.shape, self.vocab_size)
        for b, row in enumerate(input_ids.tolist()):
            for t, token in enumerate(row):
                if token in row[:t]:
                    logits[b, t, row[t - row[:t][::-1].index(token)]] = 20.0
        return type("Outputs", (), {"logits": logits, "past_key_values": None})()


def test_induction_knows_a_copier() -> None:
    told = probes.induction(Copier(5000), vocab_size=5000, length=20, rows=6)
    assert told["accuracy"] == 1.0
    assert told["nats_second"] < 0.01
    assert told["nats_first"] > 8
    blank = probes.induction(make_student(STUDENT, vocab_size=50), vocab_size=50, length=20, rows=6)
    assert blank["accuracy"] < 0.5


def test_extraction_knows_what_is_known_by_heart(student: Any) -> None:
    class Rows:
        def __init__(self, rows: torch.Tensor) -> None:
            self.rows = rows.numpy()

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, number: int) -> dict[str, Any]:
            return {"input_ids": self.rows[number]}

    from corpus_teacher.on_policy import continue_rows

    begins = torch.randint(1, VOCAB, (6, 8), generator=torch.Generator().manual_seed(0))
    known = continue_rows(student, begins, prompt_len=4, top_k=1, generator=torch.Generator())
    told = probes.extraction(student, Rows(known), prompts=6, length=4)
    assert told == {"rate": 1.0, "tokens_right": 1.0, "length": 4, "prompts": 6}
    known[:3, 5] = (known[:3, 5] + 1) % VOCAB
    told = probes.extraction(student, Rows(known), prompts=6, length=4)
    assert told["rate"] == 0.5
    assert told["tokens_right"] == 1 - 3 / 24
    windows = TokenWindows(np.arange(50) % VOCAB, 8)
    assert probes.extraction(student, windows, prompts=99, length=4)["prompts"] == 6


def test_novelty_is_the_naive_one(student: Any, index: CorpusIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).integers(0, VOCAB, (5, 20))
    rows[:, 0] = END
    rows[0] = [END, *index.tokens[:19]]  # nothing of it is new
    monkeypatch.setattr(probes, "continue_rows", lambda *args, **options: torch.from_numpy(rows))
    told = probes.novelty(student, index, samples=5, length=20, end_of_document=END)
    text = index.tokens.tolist()
    for n in (2, 4):
        grams = {tuple(text[i : i + n]) for i in range(len(text) - n) if text[i + n - 1] != END}
        all_grams = [row[t - n + 1 : t + 1] for row in rows.tolist() for t in range(n, 20)]
        asked = [tuple(gram) for gram in all_grams if END not in gram]
        assert told[str(n)] == pytest.approx(np.mean([gram not in grams for gram in asked]))
    assert told["2"] < told["4"] < 1
    assert Path(index.path).is_dir()
