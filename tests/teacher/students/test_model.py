"""A student with a table of n-grams is a causal model of transformers: caches, padding, packing, saving."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from corpus_teacher import load_student
from corpus_teacher.errors import ConfigError
from corpus_teacher.generation import CorpusDrafter
from corpus_teacher.on_policy import continue_rows, draw_continuations
from corpus_teacher.students import CorpusStudent, NgramTableSettings, with_ngram_table
from corpus_teacher.training import make_student

VOCAB, END = 23, 0
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}


def student_of(kind: str = "llama", **table: Any) -> CorpusStudent:
    """A student whose table says something already."""
    made = make_student(
        {"model_type": kind, **SIZES, "ngram_table": {"rows": 11, **table}}, vocab_size=VOCAB, end_token=END
    )
    generator = torch.Generator().manual_seed(1)
    made.table.weight.data.copy_(torch.randn(made.table.weight.shape, generator=generator))
    return made.eval()


@pytest.fixture(scope="module")
def student() -> CorpusStudent:
    return student_of()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_it_begins_as_the_student_without_a_table() -> None:
    table = {"rows": 7}
    plain = make_student(SIZES, vocab_size=VOCAB, seed=3)
    made = make_student({**SIZES, "ngram_table": table}, vocab_size=VOCAB, seed=3)
    assert all(torch.equal(one, made.model.state_dict()[name]) for name, one in plain.state_dict().items())
    assert torch.equal(plain(tokens(2, 9)).logits, made(tokens(2, 9)).logits)
    assert made.num_parameters() - plain.num_parameters() == 2 * 7 * 16 + 2
    assert isinstance(make_student({**SIZES, "ngram_table": False}, vocab_size=VOCAB), type(plain))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_a_cache_changes_nothing(kind: str) -> None:
    student = student_of(kind)
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": END}
    prompt = tokens(2, 5)
    expected = student.generate(prompt, use_cache=False, **options)
    assert torch.equal(student.generate(prompt, **options), expected)
    rows = prompt
    for _ in range(12):  # and neither has a meaning of its own
        rows = torch.cat([rows, student(rows).logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(rows, expected)


def test_beams_with_a_cache(student: CorpusStudent) -> None:
    options = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False, "pad_token_id": END}
    expected = student.generate(tokens(2, 5), use_cache=False, **options)
    assert torch.equal(student.generate(tokens(2, 5), **options), expected)


def test_a_padded_prompt_goes_on_as_alone(student: CorpusStudent) -> None:
    prompt, options = tokens(1, 4), {"max_new_tokens": 6, "do_sample": False, "pad_token_id": END}
    expected = student.generate(prompt, **options)[:, 4:]
    padded = torch.cat([torch.full((1, 3), 5), prompt], 1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    assert torch.equal(student.generate(padded, attention_mask=mask, **options)[:, 7:], expected)


def test_drafts_and_our_own_reader(student: CorpusStudent) -> None:
    prompt = tokens(1, 5)
    expected = student.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=END)
    drafter = CorpusDrafter.__new__(CorpusDrafter)
    drafter.num_tokens, drafter._max_length = 2, None
    drafter.clear()
    drafter.propose = lambda context: []  # type: ignore[method-assign]
    actual = drafter.generate(student, prompt, max_new_tokens=6, do_sample=False, pad_token_id=END)
    assert torch.equal(actual, expected)
    drawn = draw_continuations(student, prompt, 6, top_k=1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, expected[:, 5:])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    padded = torch.cat([torch.full((1, 2), 9), prompt], 1)
    drawn = draw_continuations(
        student, padded, 6, prompt_mask=mask, top_k=1, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(drawn, expected[:, 5:])
    rows = continue_rows(student, expected, prompt_len=5, top_k=1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rows, expected)


def test_segments_do_not_see_each_other(student: CorpusStudent) -> None:
    first, second = tokens(1, 4, 1), tokens(1, 5, 2)
    packed = torch.cat([first, second], 1)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    ids, segments = student._segments(packed, None, positions, None, {})
    of_table = student.table(ids, segments, 9)
    alone = [student.table(one, torch.ones_like(one), one.shape[1]) for one in (first, second)]
    torch.testing.assert_close(of_table, torch.cat(alone, 1))
    flat = {"cu_seq_lens_q": torch.tensor([0, 4, 9])}
    assert torch.equal(student._segments(packed, None, None, None, flat)[1], segments)
    numbers = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 2]])
    assert torch.equal(student._segments(packed, numbers, None, None, {})[1], segments)
    ended = torch.cat([first, torch.tensor([[END]]), second], 1)
    ids, segments = student._segments(ended, None, None, None, {})
    torch.testing.assert_close(student.table(ids, segments, 10)[:, 5:], alone[1])


def test_a_cache_without_the_tokens_before(student: CorpusStudent) -> None:
    read = student(tokens(1, 4), use_cache=True)
    name = "cache" if getattr(read, "cache", None) is not None else "past_key_values"
    with pytest.raises(ConfigError, match="context_ids"):
        student(tokens(1, 1), **{name: getattr(read, name)})


def test_it_is_saved_and_loaded(student: CorpusStudent, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    expected = student(tokens(2, 9)).logits
    for loaded in (
        load_student(tmp_path / "student"),
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "student"),
    ):
        assert isinstance(loaded, CorpusStudent)
        assert torch.equal(loaded(tokens(2, 9)).logits, expected)
    with pytest.raises(ConfigError, match="has 23 tokens and the index 24"):
        load_student(tmp_path / "student", vocab_size=24)


@pytest.mark.slow
def test_transformers_alone_refuses_it(student: CorpusStudent, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    code = (
        "import sys, transformers\n"
        "try:\n"
        "    transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "except ValueError as error:\n"
        "    assert 'corpus_teacher_student' in str(error), error\n"
        "else:\n"
        "    raise AssertionError('half of the student was loaded')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "student")], check=True)


def test_gradients_reach_the_table_with_checkpointing_too(student: CorpusStudent) -> None:
    made = []
    for checkpointed in (False, True):
        one = copy.deepcopy(student).train()
        if checkpointed:
            enable = getattr(one, "activation_checkpointing_enable", one.gradient_checkpointing_enable)
            enable()
        one(tokens(2, 9), labels=tokens(2, 9), use_cache=False).loss.backward()
        made.append([parameter.grad for parameter in one.parameters()])
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in made[0])
    torch.testing.assert_close(made[0], made[1])


def test_a_table_beside_a_model_that_is_there() -> None:
    plain = make_student(SIZES, vocab_size=VOCAB).eval()
    made = with_ngram_table(plain, NgramTableSettings(rows=5), END).eval()
    assert made.model is plain
    assert torch.equal(made(tokens(1, 6)).logits, plain(tokens(1, 6)).logits)
    assert made.config.vocab_size == VOCAB
    with pytest.raises(ConfigError, match="heads is 3 and hidden_size 16"):
        with_ngram_table(plain, NgramTableSettings(heads=3))


@pytest.mark.slow
def test_it_compiles(student: CorpusStudent) -> None:
    compiled = torch.compile(student.table, backend="eager", fullgraph=True)
    ids = tokens(2, 9)
    segments = segments_of_rows(ids)
    assert torch.equal(compiled(ids, segments, 9), student.table(ids, segments, 9))


def segments_of_rows(ids: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(ids)
