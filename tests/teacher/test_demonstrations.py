"""A model that has read a demonstration teaches itself: the alignment, the padding, and what is learnt."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpus_teacher.data import ByteTokenizer
from corpus_teacher.demonstrations import (
    DemonstrationCollator,
    DemonstrationDataset,
    DemonstrationSettings,
    completion_logits,
    counted_mask,
    demonstration_loss,
    demonstration_targets,
)
from corpus_teacher.errors import ConfigError, InputError, TargetError
from corpus_teacher.neural import EmaTeacher, TargetFormat
from corpus_teacher.on_policy import draw_continuations

from .neural_models import VOCAB, make_model

PAIRS = [([1, 2, 3], [9, 8]), ([4], [7, 7, 7, 7]), ([5, 6], [])]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(pairs: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    data = DemonstrationDataset(pairs)
    return DemonstrationCollator(pad_token=39)([data[number] for number in range(len(data))])


def test_collated_by_hand() -> None:
    batch = batch_of(PAIRS)
    assert batch["prompt_ids"].tolist() == [[1, 2, 3], [39, 39, 4], [39, 5, 6]]
    assert batch["prompt_mask"].tolist() == [[True] * 3, [False, False, True], [False, True, True]]
    assert batch["context_ids"].tolist() == [[9, 8, 1, 2, 3], [7, 7, 7, 7, 4], [39, 39, 39, 5, 6]]
    assert batch["context_mask"].sum(1).tolist() == [5, 5, 2]


def test_jsonl_of_texts_and_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [{"prompt": "2+2=", "demonstration": "1+1=2"}, {"prompt": [50], "demonstration": []}]
    path.write_text("\n".join([json.dumps(lines[0]), "", json.dumps(lines[1])]) + "\n")
    words = ByteTokenizer()
    data = DemonstrationDataset.from_jsonl(path, words, template="Like {demonstration}: {prompt}")
    assert len(data) == 2
    assert words.decode(data[0]["context_ids"]) == "Like 1+1=2: 2+2="
    assert words.decode(data[0]["prompt_ids"]) == "2+2="
    assert words.decode(data[1]["context_ids"]) == "Like : 2"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_targets_equal_a_pass_over_each_row_alone(kind: str, rows: int) -> None:
    model = make_model(kind).double()
    batch, completions = batch_of(PAIRS), torch.tensor([[10, 11, 12], [13, 14, 15], [16, 17, 18]])
    actual = demonstration_targets(model, batch, completions, rows=rows).logits.reshape(3, 3, VOCAB)
    for number, (prompt, demonstration) in enumerate(PAIRS):
        context = demonstration + prompt
        with torch.no_grad():
            whole = model(input_ids=torch.tensor([context + completions[number].tolist()])).logits[0]
        for place in range(3):  # the logits before a token predict it
            torch.testing.assert_close(actual[number, place], whole[len(context) - 1 + place])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_without_demonstrations_teacher_and_student_are_one(beta: float) -> None:
    student = make_model().double()
    batch = batch_of([(prompt, []) for prompt, _ in PAIRS])
    settings = DemonstrationSettings(max_tokens=6, beta=beta, loss_temperature=2.0)
    for teacher in (None, copy.deepcopy(student)):
        student.zero_grad()
        told = demonstration_loss(student, teacher, batch, settings, generator())
        told.loss.backward()
        # the forward KL is a cross-entropy less an entropy, which is told in float32
        assert abs(told.loss.item()) < (1e-6 if beta == 0 else 1e-12)
        assert max(parameter.grad.abs().max().item() for parameter in student.parameters()) < 1e-12
    told = demonstration_loss(student, None, batch_of(PAIRS), settings, generator())
    assert told.loss.item() > 1e-3


def test_loss_is_the_mean_of_dense_divergences() -> None:
    student, teacher = make_model().double(), make_model(seed=1).double()
    batch, settings = batch_of(PAIRS), DemonstrationSettings(max_tokens=4, skip_tokens=1)
    told = demonstration_loss(student, teacher, batch, settings, generator())
    p = demonstration_targets(teacher, batch, told.completions).logits.log_softmax(-1)
    q = completion_logits(student, batch["prompt_ids"], batch["prompt_mask"], told.completions).log_softmax(-1)
    q = q.detach().reshape(-1, VOCAB)
    every = (q.exp() * (q - p)).sum(-1).reshape(3, 4)
    torch.testing.assert_close(told.loss.detach(), every[:, 1:].mean())
    assert told.counted.tolist() == [[False, True, True, True]] * 3
    forward = demonstration_loss(student, teacher, batch, DemonstrationSettings(max_tokens=4, beta=0.0), generator())
    torch.testing.assert_close(forward.loss.detach(), (p.exp() * (p - q)).sum(-1).mean())


def test_completions_are_drawn_from_the_prompt_alone() -> None:
    student = make_model().double()
    other = [(prompt, [30, 31, 32]) for prompt, _ in PAIRS]
    settings = DemonstrationSettings(max_tokens=8)
    one, two = (demonstration_loss(student, None, batch_of(p), settings, generator(3)) for p in (PAIRS, other))
    assert torch.equal(one.completions, two.completions)
    assert one.loss != two.loss
    # padding changes nothing: each row alone draws the same, with its row of chances
    chances = torch.rand(3, 8, generator=generator(3), dtype=torch.float64)
    for number, (prompt, _) in enumerate(PAIRS):
        rows = torch.tensor([prompt])
        for place in range(8):
            with torch.no_grad():
                cumulative = student(input_ids=rows).logits[0, -1].double().softmax(-1).cumsum(0)
            token = torch.searchsorted(cumulative, chances[number, place], right=True)
            rows = torch.cat([rows, token.reshape(1, 1)], 1)
        assert rows[0, len(prompt) :].tolist() == one.completions[number].tolist()


def test_answers_end() -> None:
    student, batch = make_model(), batch_of(PAIRS)
    end = int(draw_continuations(
        student, batch["prompt_ids"], 9, prompt_mask=batch["prompt_mask"], generator=generator()
    )[1, 2])  # fmt: skip
    settings = DemonstrationSettings(max_tokens=9, end_token=end)
    told = demonstration_loss(student, None, batch, settings, generator())
    assert told.counted[1].sum() <= 3
    assert torch.equal(told.counted, counted_mask(told.completions, end))
    assert bool((told.completions[~told.counted] == end).all())


def test_only_the_student_has_a_gradient() -> None:
    student = make_model(attention_dropout=0.5)
    student.train()
    teacher = EmaTeacher(student, decay=0.9, kept=TargetFormat(k=4))
    told = demonstration_loss(student, teacher, batch_of(PAIRS), DemonstrationSettings(max_tokens=5), generator())
    told.loss.backward()
    assert student.training
    assert student.model.layers[0].training
    assert student.lm_head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_a_model_learns_to_do_without_the_demonstration() -> None:
    """The teacher, told which token to say by a demonstration of that token, says it more; the student follows."""
    student = make_model(seed=5)
    batch = batch_of([([3], [21, 21, 21, 21])] * 8)
    teacher, settings = copy.deepcopy(student), DemonstrationSettings(max_tokens=4)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        told = demonstration_loss(student, teacher, batch, settings, generator(step))
        optimizer.zero_grad()
        told.loss.backward()
        optimizer.step()
        losses.append(told.loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_another_vocabulary_is_refused() -> None:
    student, teacher = make_model(), make_model(vocab_size=VOCAB + 8)
    with pytest.raises(TargetError, match="the student knows 40 tokens and the teacher 48"):
        demonstration_loss(student, teacher, batch_of(PAIRS), DemonstrationSettings(max_tokens=2), generator())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta": 2}, "beta is 2: give a number from 0"),
        ({"loss_temperature": 0}, "loss_temperature is 0: give a positive"),
        ({"max_tokens": 0}, "leave at least 1 that counts"),
        ({"skip_tokens": 64}, "skip_tokens is 64 of max_tokens, 64"),
        ({"rows": 0}, "rows is 0: give the teacher at least 1"),
        ({"top_p": 2}, "top_p is 2: give a share"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DemonstrationSettings(**settings)


def test_data_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs \{demonstration\} and \{prompt\}, once each"):
        DemonstrationDataset([], template="{prompt}")
    with pytest.raises(ConfigError, match="has words of its own: give the student's tokenizer"):
        DemonstrationDataset([], template="{demonstration}\n{prompt}")
    with pytest.raises(InputError, match="pair 0 has an empty prompt"):
        DemonstrationDataset([([], [1])])
    with pytest.raises(InputError, match="pair 0 is text: give the student's tokenizer"):
        DemonstrationDataset([("a", [1])])
    with pytest.raises(InputError, match=r"pair 0 holds \[1.5\]: give a text or a list of token ids"):
        DemonstrationDataset([([1.5], [1])])  # type: ignore[list-item]
    with pytest.raises(InputError, match="no pairs make no batch"):
        DemonstrationCollator()([])
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(InputError, match="can't be read"):
        DemonstrationDataset.from_jsonl(path)
    for line, says in (("{", "line 2 is no JSON"), ('{"prompt": "a"}', "line 2 has no prompt and demonstration")):
        path.write_text('{"prompt": [1], "demonstration": [2]}\n' + line)
        with pytest.raises(InputError, match=says):
            DemonstrationDataset.from_jsonl(path)
