"""Live neural teachers against a plain forward of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from corpus_teacher.data import ByteTokenizer, TokenWindows, train_tokenizer
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, InputError, TokenizerError
from corpus_teacher.neural import EmaTeacher, NeuralTeacher, TargetFormat, live
from corpus_teacher.training import DistillationConfig, train_student

from ..neural_models import VOCAB, make_model

ROWS = torch.randint(0, VOCAB, (5, 9), generator=torch.Generator().manual_seed(0))


def plain(model: transformers.PreTrainedModel, rows: torch.Tensor = ROWS) -> torch.Tensor:
    """The naive teacher: softmax of all logits, (Q, V) float64."""
    with torch.no_grad():
        return model(input_ids=rows).logits.double().softmax(-1).reshape(-1, model.config.vocab_size)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("chunk", [1, 3 * VOCAB, 1 << 23])
def test_live_equals_a_plain_forward(kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "CHUNK_ELEMENTS", chunk)
    model = make_model(kind)
    teacher = NeuralTeacher(model, kept=TargetFormat("top-k", k=VOCAB), rows=2)
    assert teacher.has_plain_head
    sizes = [hi - lo for lo, hi, _ in teacher.logit_chunks(ROWS)]
    assert sum(sizes) == ROWS.numel()
    assert max(sizes) <= max(1, chunk // VOCAB)
    targets = teacher(ROWS).validate()
    torch.testing.assert_close(targets.dense().double(), plain(model), atol=1e-6, rtol=1e-5)
    assert float(targets.cut_mass.abs().max()) < 1e-6
    one = teacher(ROWS[3])
    torch.testing.assert_close(one.dense(), targets.dense()[27:36])


def test_a_soft_cap_is_kept_in() -> None:
    model = make_model()
    model.config.final_logit_softcapping = 1.0
    forward = model.forward

    def capped(**inputs: object) -> object:
        output = forward(**inputs)
        output.logits = torch.tanh(output.logits)
        return output

    model.forward = capped  # what a soft-capped model does
    teacher = NeuralTeacher(model, kept=TargetFormat("top-k", k=VOCAB), rows=2)
    assert not teacher.has_plain_head
    torch.testing.assert_close(teacher(ROWS).dense().double(), plain(model), atol=1e-6, rtol=1e-5)
    with pytest.raises(ConfigError, match="not its output embedding applied to its last hidden states"):
        teacher.hidden_states(ROWS)
    model.config.final_logit_softcapping = None  # found out by asking it, too
    assert not NeuralTeacher(model, kept=TargetFormat("top-k", k=4)).has_plain_head


def test_a_model_in_training_stays_so() -> None:
    model = make_model("gpt2").train()
    model.transformer.h[0].eval()
    teacher = NeuralTeacher(model, kept=TargetFormat("top-k", k=VOCAB))
    first, second = teacher(ROWS), teacher(ROWS)
    assert torch.equal(first.probs, second.probs)  # no dropout
    assert not first.probs.requires_grad
    assert model.training
    assert model.lm_head.training
    assert not model.transformer.h[0].training
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(teacher(ROWS).probs, first.probs)


def test_precision_and_base() -> None:
    model = make_model()
    base = torch.softmax(torch.arange(VOCAB) / 9.0, 0)
    teacher = NeuralTeacher(model, kept=TargetFormat("top-p", p=0.7, k=20), base=base.tolist(), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    targets = teacher(ROWS).validate()
    torch.testing.assert_close(targets.base, base)
    assert float(targets.cut_mass.max()) > 0.1
    assert teacher.describe()["model_dtype"] == "bfloat16"
    for wrong in ([0.5, 0.5], [2 / VOCAB] * VOCAB):
        with pytest.raises(ConfigError, match="give a distribution over the 40 tokens"):
            NeuralTeacher(model, base=wrong, kept=TargetFormat(k=4))


def test_stored_hidden_states() -> None:
    model = make_model()
    exact = NeuralTeacher(model, kept=TargetFormat(k=4)).logits(ROWS)
    off = {}
    for precision in ("fp32", "bf16", "int8"):
        stored = NeuralTeacher(model, kept=TargetFormat("hidden", precision=precision)).stored_logits(ROWS)
        assert stored.shape == exact.shape
        off[precision] = float((stored - exact).abs().max())
    assert off["fp32"] < 1e-6 < off["bf16"]
    assert off["bf16"] < 0.1
    assert 1e-6 < off["int8"] < 0.1


def test_draws_follow_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = NeuralTeacher(make_model(), kept=TargetFormat("sample", draws=5), rows=2)
    all_rows = teacher(ROWS).validate().dense()
    monkeypatch.setattr(live, "CHUNK_ELEMENTS", 2 * VOCAB)
    turned = teacher(ROWS.flip(0)).dense().reshape(5, 9, VOCAB).flip(0).reshape(-1, VOCAB)
    torch.testing.assert_close(turned, all_rows)


def test_vocabularies(tmp_path: Path) -> None:
    model = make_model(vocab_size=300)
    kept = TargetFormat(k=8)
    assert NeuralTeacher(model, kept=kept, vocab_size=300).vocab_size == 300
    with pytest.raises(ConfigError, match="knows 300 tokens and the student or index 301"):
        NeuralTeacher(model, kept=kept, vocab_size=301)
    with pytest.raises(ConfigError, match="no tokenizer says that the rest is padding"):
        NeuralTeacher(model, kept=kept, vocab_size=257)
    padded = NeuralTeacher(model, kept=TargetFormat(k=257), vocab_size=257, tokenizer=ByteTokenizer())
    with torch.no_grad():
        expected = model(input_ids=ROWS).logits[..., :257].softmax(-1).reshape(-1, 257)
    torch.testing.assert_close(padded(ROWS).dense(), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ConfigError, match="its tokenizer uses 257"):
        NeuralTeacher(model, kept=kept, vocab_size=256, tokenizer=ByteTokenizer())
    with pytest.raises(ConfigError, match="k is 64 and the vocabulary has 40"):
        NeuralTeacher(make_model())
    with pytest.raises(ConfigError, match="rows is 0"):
        NeuralTeacher(model, rows=0)
    with pytest.raises(InputError, match="token id 257 is outside"):
        padded([[257]])
    assert not padded([[-1]]).valid.any()  # padding
    with pytest.raises(InputError, match="give integer token ids"):
        padded([[0.5]])


def test_tokenizers(tmp_path: Path) -> None:
    model, other = make_model(vocab_size=300), train_tokenizer(["a few words, a few more words"] * 9, 270)
    build_index_from_documents(["some text"], ByteTokenizer(), tmp_path / "index", name="by hand").close()
    kept = TargetFormat(k=8)
    NeuralTeacher(model, kept=kept, tokenizer="bytes", student_tokenizer=tmp_path / "index")
    with pytest.raises(TokenizerError, match=r"the teacher's tokenizer 'train:270' .* is not 'bytes'"):
        NeuralTeacher(model, kept=kept, tokenizer=other, student_tokenizer=tmp_path / "index")
    with pytest.raises(TokenizerError, match="comes without a tokenizer"):
        NeuralTeacher(model, kept=kept, student_tokenizer="bytes")


def test_a_tokenizer_is_known_by_what_it_does(tmp_path: Path) -> None:
    """Saved again by transformers it has a template of special tokens, and does the same."""
    words = train_tokenizer(["the cat sat on the mat"] * 9, 270)
    again = transformers.PreTrainedTokenizerFast(tokenizer_object=words.backend, eos_token="<|endoftext|>")
    again.save_pretrained(tmp_path / "saved")
    saved = load_tokenizer(tmp_path / "saved")
    assert saved.to_bytes() != words.to_bytes()
    assert saved.fingerprint == words.fingerprint
    assert saved.file_fingerprint != words.file_fingerprint
    NeuralTeacher(make_model(vocab_size=300), kept=TargetFormat(k=8), tokenizer=saved, student_tokenizer=words)
    assert train_tokenizer(["a dog ran off"] * 9, 270).fingerprint != words.fingerprint


def test_a_teacher_with_more_tokens_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    words = train_tokenizer(["the cat sat on the mat"] * 9, 270)
    more = Tokenizer.from_bytes(words.to_bytes(), spec="chat")
    more.backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    more = Tokenizer(more.backend, spec="chat")
    size = words.vocab_size
    assert more.vocab_size == size + 2
    model, kept = make_model(vocab_size=300), TargetFormat(k=8)
    for options in ({}, {"vocab_size": size}):
        caplog.clear()
        teacher = NeuralTeacher(model, kept=kept, tokenizer=more, student_tokenizer=words, **options)
        assert [record.message for record in caplog.records] == [
            f"neural teacher: its tokenizer has 2 tokens beyond the student's {size}, whose ids are the same, and left "
            "out of the targets"
        ]
        assert teacher.vocab_size == size
        with torch.no_grad():
            expected = model(input_ids=ROWS).logits[..., :size].softmax(-1).reshape(-1, size)
        whole = NeuralTeacher(model, kept=TargetFormat("all"), tokenizer=more, student_tokenizer=words, **options)
        torch.testing.assert_close(whole(ROWS).logits.softmax(-1), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(TokenizerError, match=r"is not 'chat' .*: id \d+ is None and '<\|im_start\|>', id \d+ is None"):
        NeuralTeacher(model, kept=kept, tokenizer=words, student_tokenizer=more)


def test_what_differs_is_named() -> None:
    first, second = (train_tokenizer([text] * 9, 262) for text in ("the cat sat on", "a dog ran off"))
    with pytest.raises(
        TokenizerError, match=r"train:262.* is not .*: id \d+ is '.*' and '.*', id \d+ is .*, id \d+ is"
    ):
        NeuralTeacher(make_model(vocab_size=300), kept=TargetFormat(k=8), tokenizer=first, student_tokenizer=second)


def test_padding_is_taken_as_such_where_models_are_padded(caplog: pytest.LogCaptureFixture) -> None:
    model, kept = make_model(vocab_size=320), TargetFormat(k=8)
    teacher = NeuralTeacher(model, kept=kept, vocab_size=257)  # 257 rounded up to a multiple of 64
    assert teacher.vocab_size == 257
    assert "the model's 63 outputs from 257 on are taken as padding" in caplog.text
    with pytest.raises(ConfigError, match="no tokenizer says that the rest is padding"):
        NeuralTeacher(model, kept=kept, vocab_size=200)


def test_saved_models(tmp_path: Path) -> None:
    model = make_model(vocab_size=300)
    model.save_pretrained(tmp_path / "checkpoint-5")
    (tmp_path / "checkpoint-5" / "tokenizer.json").write_bytes(ByteTokenizer().to_bytes())
    teacher = NeuralTeacher(
        tmp_path / "checkpoint-5", student_tokenizer="bytes", vocab_size=257, kept=TargetFormat(k=9)
    )
    assert not any(weight.requires_grad for weight in teacher.model.parameters())
    expected = NeuralTeacher(model, kept=TargetFormat(k=9), tokenizer="bytes", vocab_size=257)
    assert torch.equal(teacher(ROWS).probs, expected(ROWS).probs)
    assert teacher.describe()["model_fingerprint"] == expected.describe()["model_fingerprint"]
    changed = make_model(vocab_size=300, seed=1)
    assert NeuralTeacher(changed, kept=TargetFormat(k=9)).identity() != expected.identity()
    (tmp_path / "empty").mkdir()
    for spec in (tmp_path / "empty", "no-such/model", tmp_path / "no.gguf"):
        with pytest.raises(InputError, match=r"no causal language model|there is no file"):
            NeuralTeacher(spec)


def test_moving_average() -> None:
    student = make_model(seed=1)
    teacher = EmaTeacher(student, decay=0.75, warm_up=False, kept=TargetFormat(k=VOCAB))
    torch.testing.assert_close(teacher(ROWS).dense().double(), plain(student), atol=1e-6, rtol=1e-5)
    expected = [weight.detach().double().clone() for weight in student.parameters()]
    for step in range(3):
        with torch.no_grad():
            for weight in student.parameters():
                weight.add_(0.1 * (step + 1))
        teacher.update(student)
        expected = [
            0.75 * old + 0.25 * weight.detach().double()
            for old, weight in zip(expected, student.parameters(), strict=True)
        ]
    for average, value in zip(teacher.model.parameters(), expected, strict=True):
        torch.testing.assert_close(average.double(), value, atol=1e-6, rtol=1e-6)
    again = EmaTeacher(student, decay=0.75, warm_up=False, kept=TargetFormat(k=VOCAB))
    again.load_state_dict(teacher.state_dict())
    assert torch.equal(again(ROWS).probs, teacher(ROWS).probs)
    assert again.describe()["updates"] == 3
    quick = EmaTeacher(student, kept=TargetFormat(k=VOCAB))
    quick.update(make_model(seed=2))  # the first decay of a warm-up is 1 / 10
    ours, new = (next(model.parameters()) for model in (quick.model, make_model(seed=2)))
    torch.testing.assert_close(ours, 0.1 * next(student.parameters()) + 0.9 * new)
    with pytest.raises(ConfigError, match="decay is 1"):
        EmaTeacher(student, decay=1)
    with pytest.raises(ConfigError, match="is in only one of student and average"):
        teacher.update(make_model("gpt2"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_of_a_student_in_half_precision(dtype: torch.dtype) -> None:
    """A step of (1 − decay) · difference is below bfloat16's last place: averaged in it, nothing moves."""
    student = make_model(seed=1).to(dtype)
    weight = student.lm_head.weight
    with torch.no_grad():
        weight.fill_(1.0)
        teacher = EmaTeacher(student, decay=0.999, warm_up=False, kept=TargetFormat(k=4))
        weight.fill_(1.25)
    for _ in range(700):
        teacher.update(student)
    kept = teacher.state_dict()["model"]["lm_head.weight"]
    way = (kept.double().mean() - 1) / 0.25
    assert kept.dtype == torch.float32
    assert float(way) == pytest.approx(1 - 0.999**700, rel=1e-4)
    assert teacher.model.lm_head.weight.dtype == dtype
    torch.testing.assert_close(teacher.model.lm_head.weight, kept.to(dtype))
    again = EmaTeacher(student, decay=0.999, warm_up=False, kept=TargetFormat(k=4))
    again.load_state_dict(teacher.state_dict())
    again.update(student)
    teacher.update(student)
    assert torch.equal(again.state_dict()["model"]["lm_head.weight"], teacher.state_dict()["model"]["lm_head.weight"])


def test_a_student_learns_from_its_own_average(tmp_path: Path) -> None:
    student = make_model(seed=1)
    teacher = EmaTeacher(student, decay=0.5, kept=TargetFormat(k=8))
    windows = TokenWindows(ROWS.flatten().numpy(), 9)
    config = DistillationConfig(str(tmp_path), max_steps=4, per_device_train_batch_size=2, use_cpu=True)
    result = train_student(config, student, windows, windows, self_teacher=teacher)
    assert teacher.steps == result.steps == 4
    assert not torch.equal(next(teacher.model.parameters()), next(student.parameters()))
