"""The student's own text: what is drawn, how often, and that a seed decides it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_index import build_index

from corpus_teacher import CorpusTeacher, soft_cross_entropy
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.neural import NeuralTeacher, TargetFormat
from corpus_teacher.on_policy import OnPolicy, continue_rows, draw_continuations, draw_tokens

from .neural_models import VOCAB, make_model


def naive_rows(model: Any, rows: torch.Tensor, prompt_len: int, chances: torch.Tensor) -> torch.Tensor:
    """The whole row read again for every token, and a token found by adding probabilities up."""
    rows = rows.clone()
    for b in range(rows.shape[0]):
        for t in range(prompt_len, rows.shape[1]):
            with torch.no_grad():
                probs = model(input_ids=rows[b : b + 1, :t], use_cache=False).logits[0, -1].double().softmax(-1)
            token, total = 0, float(probs[0])
            while total <= float(chances[b, t - prompt_len]):
                token += 1
                total += float(probs[token])
            rows[b, t] = token
    return rows


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_rows_equal_a_naive_loop(kind: str) -> None:
    model = make_model(kind).double()
    rows = torch.arange(3 * 9).reshape(3, 9)
    chances = torch.rand(3, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    expected = naive_rows(model, rows, 4, chances)
    actual = continue_rows(model, rows, prompt_len=4, generator=torch.Generator().manual_seed(7))

    assert torch.equal(actual, expected)
    assert torch.equal(actual[:, :4], rows[:, :4])
    assert not torch.equal(actual, rows)


def test_a_model_without_a_cache_draws_the_same() -> None:
    class Forgetful(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_model().double()

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            return self.inner(input_ids=input_ids, use_cache=False)

    rows = torch.arange(2 * 8).reshape(2, 8)
    draw = [
        continue_rows(model, rows, prompt_len=2, generator=torch.Generator().manual_seed(1))
        for model in (Forgetful(), make_model().double())
    ]
    assert torch.equal(*draw)


def test_the_generator_alone_decides() -> None:
    model, rows = make_model(), torch.zeros(4, 12, dtype=torch.int64)
    settings = OnPolicy(prompt_len=2, seed=3)

    def draw(*numbers: int) -> torch.Tensor:
        torch.rand(1)  # the global state moves on, and doesn't matter
        return continue_rows(model, rows, prompt_len=2, generator=settings.generator(*numbers))

    assert torch.equal(draw(5, 0), draw(5, 0))
    assert not torch.equal(draw(5, 0), draw(5, 1))
    assert not torch.equal(draw(5, 0), draw(6, 0))
    assert OnPolicy(seed=4).generator(5).initial_seed() != settings.generator(5).initial_seed()


def test_neither_gradient_nor_modes_change() -> None:
    model = make_model(attention_dropout=0.9)
    model.train()
    model.lm_head.eval()
    rows = torch.zeros(2, 10, dtype=torch.int64)
    first, again = (continue_rows(model, rows, prompt_len=1, generator=torch.Generator().manual_seed(0)) for _ in "ab")
    assert torch.equal(first, again)  # no dropout
    assert model.training
    assert model.model.layers[0].training
    assert not model.lm_head.training
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frequencies_are_the_students_own() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]]).expand(20_000, 4)
    chances = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for temperature, top_k, top_p in ((1.0, None, 1.0), (2.0, None, 1.0), (1.0, 2, 1.0), (1.0, None, 0.7), (1, 1, 1)):
        expected = (torch.tensor([0.0, 1.0, 2.0, -torch.inf]) / temperature).softmax(0)
        if top_k == 2 or top_p == 0.7:  # 0.67 for the likeliest: the second is needed to hold 0.7
            expected[0] = 0
        if top_k == 1:
            expected[:2] = 0
        expected = expected / expected.sum()
        actual = draw_tokens(logits, chances, temperature, top_k, top_p).bincount(minlength=4) / 20_000
        torch.testing.assert_close(actual, expected, atol=0.02, rtol=0)
        assert actual[expected == 0].sum() == 0


def test_the_last_chance_still_draws_a_token() -> None:
    logits = torch.full((1, 5), -torch.inf)
    logits[0, 1:3] = 0.0
    almost_one = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert draw_tokens(logits, almost_one).tolist() == [2]
    assert draw_tokens(logits, almost_one, top_k=4).tolist() == [2]


def test_tokens_beyond_the_teachers_are_not_drawn() -> None:
    rows = torch.zeros(8, 20, dtype=torch.int64)
    drawn = continue_rows(make_model(), rows, prompt_len=1, generator=torch.Generator().manual_seed(0), vocab_size=9)
    assert 0 < drawn.max() < 9


def test_rows_end_with_their_end_token() -> None:
    prompts = torch.zeros(6, 3, dtype=torch.int64)
    options = {"generator": torch.Generator().manual_seed(2)}
    free = draw_continuations(make_model(), prompts, 30, **options)
    end = int(free[0, 4])
    options = {"generator": torch.Generator().manual_seed(2)}
    drawn = draw_continuations(make_model(), prompts, 30, end_token=end, **options)
    for actual, expected in zip(drawn.tolist(), free.tolist(), strict=True):
        length = expected.index(end) + 1 if end in expected else 30
        assert actual == expected[:length] + [end] * (30 - length)


def test_share_of_steps() -> None:
    quarter = OnPolicy(share=0.25, seed=1)
    chosen = [quarter.is_on_policy(step) for step in range(4000)]
    assert 0.22 < np.mean(chosen) < 0.28
    assert chosen == [OnPolicy(share=0.25, seed=1).is_on_policy(step) for step in range(4000)]
    assert chosen != [OnPolicy(share=0.25, seed=2).is_on_policy(step) for step in range(4000)]
    assert not any(OnPolicy(share=0).is_on_policy(step) for step in range(100))
    assert all(OnPolicy(share=1).is_on_policy(step) for step in range(100))
    # a larger share only adds steps
    assert all(OnPolicy(share=0.5, seed=1).is_on_policy(step) for step in range(4000) if chosen[step])


def test_mask_counts_the_positions_before_drawn_tokens() -> None:
    mask = OnPolicy(prompt_len=3).sampled_mask(torch.zeros(2, 6, dtype=torch.int64))
    assert mask.tolist() == [[False, False, True, True, True, False]] * 2


def test_the_corpus_and_a_model_teach_the_drawn_text(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, VOCAB, 3000)
    build_index(tokens, tmp_path / "index", vocab_size=VOCAB)
    student, settings = make_model(seed=1), OnPolicy(prompt_len=4)
    rows = torch.from_numpy(tokens[:48].reshape(4, 12))
    written = continue_rows(student, rows, prompt_len=4, generator=settings.generator(0))
    counted = settings.sampled_mask(written).float()
    for teacher in (
        CorpusTeacher(tmp_path / "index", leave_out=None),
        NeuralTeacher(make_model(), kept=TargetFormat(k=8)),
    ):
        targets = teacher(written)
        assert bool(targets.valid.all())
        student.zero_grad()
        soft_cross_entropy(student(written).logits, targets, weights=counted).backward()
        assert student.lm_head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"share": 1.5}, "share is 1.5: give a number from 0"),
        ({"share": float("nan")}, "share is nan"),
        ({"prompt_len": 0}, "prompt_len is 0: give the student at least 1 token"),
        ({"prompt_len": 2.0}, "prompt_len is 2.0"),
        ({"temperature": 0}, "temperature is 0: give a positive number"),
        ({"top_k": 0}, "top_k is 0: give at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0: give a share above 0"),
        ({"seed": "x"}, "seed is 'x': give a whole number"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        OnPolicy(**settings)
    name = next(iter(settings))
    if name in inspect.signature(continue_rows).parameters:
        options = {"prompt_len": 1, "generator": torch.Generator(), **settings}
        with pytest.raises(ConfigError, match=says):
            continue_rows(make_model(), torch.zeros(1, 4, dtype=torch.int64), **options)


def test_rows_shorter_than_the_prompt() -> None:
    with pytest.raises(InputError, match=r"input_ids has shape \(1, 4\): give rows \(B, T\) of at least prompt_len, 5"):
        continue_rows(make_model(), torch.zeros(1, 4, dtype=torch.int64), prompt_len=5, generator=torch.Generator())
