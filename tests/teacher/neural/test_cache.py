"""Caches of a neural teacher: what is read is what was said, whatever happened in between."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpus_teacher.data import ByteTokenizer, Tokenizer, TokenWindows, train_tokenizer
from corpus_teacher.errors import (
    CacheError,
    ConfigError,
    InputError,
    MissingWindowError,
    OutputError,
    TokenizerError,
)
from corpus_teacher.neural import CachedTeacher, NeuralTeacher, TargetFormat, caching, write_cache
from corpus_teacher.neural.coding import RecordCodec
from corpus_teacher.neural.formats import SparseRows
from corpus_teacher.neural.shards import MANIFEST, read_manifest

from ..neural_models import VOCAB, make_model

LENGTH, COUNT = 8, 11
TOKENS = np.random.default_rng(0).integers(0, VOCAB, LENGTH * COUNT + 3).astype(np.uint16)
ROWS = TOKENS[: LENGTH * COUNT].reshape(COUNT, LENGTH).astype(np.int64)

# How far a whole probability may be off, relative to itself.
PRECISION = {"fp32": 1e-6, "fp16": 4e-3, "bf16": 8e-3, "int8": 5e-2}
SPARSE = [TargetFormat(kind, k=6, p=0.7, precision=p) for kind in ("top-k", "top-p") for p in PRECISION]
DRAWN = [TargetFormat("sample", draws=9), TargetFormat("systematic", draws=300)]
HIDDEN = [TargetFormat("hidden", precision=precision) for precision in PRECISION]


def windows(tokens: Any = TOKENS) -> TokenWindows:
    return TokenWindows(tokens, LENGTH, shuffle=False)


@pytest.fixture(scope="module")
def teacher() -> NeuralTeacher:
    return NeuralTeacher(make_model(), kept=TargetFormat(k=VOCAB))


@pytest.fixture
def cache(teacher: NeuralTeacher, tmp_path: Path) -> Path:
    write_cache(teacher, windows(), tmp_path / "cache", kept=TargetFormat(k=6), shard_tokens=4 * LENGTH, rows=3)
    return tmp_path / "cache"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kept", SPARSE + DRAWN, ids=lambda kept: f"{kept.kind}-{kept.precision}")
def test_sparse_formats_read_back(teacher: NeuralTeacher, tmp_path: Path, kept: TargetFormat) -> None:
    summary = write_cache(teacher, windows(), tmp_path / "cache", kept=kept, shard_tokens=32, rows=3)
    live = NeuralTeacher(teacher.model, kept=kept)
    expected = live(ROWS)
    cached = CachedTeacher(tmp_path / "cache", vocab_size=VOCAB)
    actual = cached(ROWS).validate()
    assert torch.equal(actual.offsets, expected.offsets)
    assert torch.equal(actual.token_ids, expected.token_ids)
    tolerance = 1e-6 if kept.is_drawn else PRECISION[kept.precision]
    torch.testing.assert_close(actual.probs, expected.probs, rtol=tolerance, atol=1e-6)
    torch.testing.assert_close(actual.cut_mass, expected.cut_mass, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(actual.rest, expected.rest, rtol=2e-3, atol=1e-5)
    assert summary.positions == ROWS.size
    assert summary.mean_cut_mass == pytest.approx(float(expected.cut_mass.mean()), abs=1e-6)
    assert cached.mean_cut_mass == summary.mean_cut_mass
    assert summary.size_bytes == cached.size_bytes == sum(f.stat().st_size for f in tmp_path.glob("cache/shard-*"))
    order = [7, 2, 2, 9]  # any order and batch, and a window twice
    again = cached(torch.from_numpy(ROWS[order])).dense().reshape(4, LENGTH, VOCAB)
    assert torch.equal(again, actual.dense().reshape(COUNT, LENGTH, VOCAB)[order])


@pytest.mark.parametrize("kept", HIDDEN, ids=lambda kept: kept.precision)
def test_hidden_states_give_the_logits(teacher: NeuralTeacher, tmp_path: Path, kept: TargetFormat) -> None:
    write_cache(teacher, windows(), tmp_path / "cache", kept=kept)
    cached = CachedTeacher(tmp_path / "cache", kept=TargetFormat(k=VOCAB))
    with torch.no_grad():
        expected = teacher.model(input_ids=torch.from_numpy(ROWS)).logits
    scale = float(expected.abs().max())
    torch.testing.assert_close(cached.logits(ROWS), expected, rtol=0, atol=PRECISION[kept.precision] * scale)
    torch.testing.assert_close(
        cached(ROWS).validate().dense().reshape(COUNT, LENGTH, VOCAB),
        cached.logits(ROWS).softmax(-1),
        atol=1e-6,
        rtol=1e-5,
    )
    assert CachedTeacher(tmp_path / "cache").kept.k == VOCAB  # 64 at most


def test_a_cache_of_hidden_states_is_a_teacher_to_cache(teacher: NeuralTeacher, tmp_path: Path) -> None:
    write_cache(teacher, windows(), tmp_path / "hidden", kept=TargetFormat("hidden", precision="fp32"))
    for kept in (TargetFormat(k=5), TargetFormat("sample", draws=7)):
        out = tmp_path / kept.kind
        write_cache(CachedTeacher(tmp_path / "hidden"), windows(), out, kept=kept)
        expected = NeuralTeacher(teacher.model, kept=kept)(ROWS)
        torch.testing.assert_close(CachedTeacher(out)(ROWS).dense(), expected.dense(), atol=1e-3, rtol=1e-3)
        assert read_manifest(out)["teacher"] == read_manifest(tmp_path / "hidden")["teacher"]


def test_a_head_with_a_bias(tmp_path: Path) -> None:
    model = make_model()
    model.lm_head = torch.nn.Linear(16, VOCAB)
    teacher = NeuralTeacher(model, kept=TargetFormat("hidden", precision="fp32"))
    assert teacher.has_plain_head
    write_cache(teacher, windows(), tmp_path / "cache")
    with torch.no_grad():
        expected = model(input_ids=torch.from_numpy(ROWS)).logits
    torch.testing.assert_close(CachedTeacher(tmp_path / "cache").logits(ROWS), expected)


@pytest.mark.parametrize("vocab_size", [100, 70_000, 1 << 25])
@pytest.mark.parametrize("draws", [3, 400])
def test_records_of_any_vocabulary(vocab_size: int, draws: int) -> None:
    tokens = torch.tensor([0, vocab_size - 1, vocab_size // 2])
    rows = SparseRows(
        torch.tensor([1, 0, 2]), tokens, torch.tensor([1, 1 / draws, (draws - 1) / draws]), torch.zeros(3)
    )
    codec = RecordCodec(TargetFormat("sample", draws=draws), vocab_size, 3)
    record = codec.encode_sparse(rows)
    width = 2 if vocab_size == 100 else 3 if vocab_size == 70_000 else 4
    length_bytes, count_bytes = (1 if most < 256 else 2 for most in (min(vocab_size, draws), draws))
    assert len(record) == 3 * length_bytes + 3 * (width + count_bytes)
    for actual, expected in zip(codec.decode_sparse(np.frombuffer(record, np.uint8)), rows, strict=True):
        torch.testing.assert_close(actual, expected)


def test_eight_bits_of_very_sure_positions() -> None:
    probs = torch.tensor([1.0, 0.0, 0.5, 0.5])
    rows = SparseRows(torch.tensor([2, 2]), torch.tensor([3, 1, 0, 2]), probs, torch.zeros(2))
    codec = RecordCodec(TargetFormat("top-k", k=2, precision="int8"), 5, 2)
    read = codec.decode_sparse(np.frombuffer(codec.encode_sparse(rows), np.uint8))
    torch.testing.assert_close(read.probs, probs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("precision", PRECISION)
def test_a_small_tail_is_not_rounded_away(precision: str) -> None:
    codec = RecordCodec(TargetFormat("top-k", k=1, precision=precision), 5, 2)
    rows = SparseRows(torch.tensor([1, 1]), torch.tensor([3, 1]), torch.ones(2), torch.tensor([1e-12, 0.0]))
    tail = codec.decode_sparse(np.frombuffer(codec.encode_sparse(rows), np.uint8)).tail
    assert 0 < float(tail[0]) < 1e-7
    assert float(tail[1]) == 0


def test_fewer_of_the_cached_tokens(cache: Path, teacher: NeuralTeacher) -> None:
    expected = NeuralTeacher(teacher.model, kept=TargetFormat(k=2))(ROWS)
    actual = CachedTeacher(cache, k=2)(ROWS).validate()
    assert torch.equal(actual.token_ids, expected.token_ids)
    torch.testing.assert_close(actual.dense(), expected.dense(), rtol=5e-3, atol=1e-5)
    torch.testing.assert_close(actual.cut_mass, expected.cut_mass, rtol=5e-3, atol=1e-4)
    for wrong in (0, 7):
        with pytest.raises(ConfigError, match=f"k is {wrong} and the cache keeps"):
            CachedTeacher(cache, k=wrong)


def killed_after(records: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caching die in its n-th batch."""
    asked, real = [0], caching._records

    def dying(*arguments: Any) -> Any:
        asked[0] += 1
        if asked[0] > records:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(caching, "_records", dying)


@pytest.mark.parametrize("kept", [TargetFormat(k=4), TargetFormat("sample", draws=5), TargetFormat("hidden")])
def test_killed_and_resumed_gives_the_same_files(
    teacher: NeuralTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: TargetFormat
) -> None:
    options: dict[str, Any] = {"kept": kept, "shard_tokens": 4 * LENGTH, "rows": 3}
    write_cache(teacher, windows(), tmp_path / "whole", **options)
    for batches in (0, 3, 1):  # in the first batch, in the second of the second shard, in the second of the third
        with monkeypatch.context() as patch:
            killed_after(batches, patch)
            with pytest.raises(KeyboardInterrupt):
                write_cache(teacher, windows(), tmp_path / "killed", **options)
    assert CachedTeacher(tmp_path / "killed").num_windows == 4  # it opens, and holds its whole shards
    (tmp_path / "killed" / "shard-00001.bin.partial").write_bytes(b"half")
    summary = write_cache(teacher, windows(), tmp_path / "killed", **options)
    assert summary.windows == COUNT
    assert summary.new_windows == COUNT - 4
    (tmp_path / "killed" / "shard-00001.bin.partial").unlink(missing_ok=True)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_once_more_and_more_text(cache: Path, teacher: NeuralTeacher) -> None:
    before = files(cache)
    options: dict[str, Any] = {"kept": TargetFormat(k=6), "shard_tokens": 4 * LENGTH, "rows": 3}
    assert write_cache(teacher, windows(), cache, **options).new_windows == 0
    assert files(cache) == before
    more = np.concatenate([TOKENS[8:40], (TOKENS[:32] + 1) % VOCAB, (TOKENS[:8] + 1) % VOCAB])
    assert write_cache(teacher, windows(more), cache, **options).new_windows == 4  # the last stands there twice
    cached = CachedTeacher(cache)
    assert cached.num_windows == COUNT + 4
    assert more[32:40] in cached
    assert more[:8] in cached
    assert more[1:9] not in cached
    assert more[:7] not in cached


def test_missing_windows(cache: Path, teacher: NeuralTeacher) -> None:
    strange = np.concatenate([ROWS[:1], ROWS[:1] + 1 - 2 * (ROWS[:1] == VOCAB - 1), ROWS[3:4]])
    with pytest.raises(
        MissingWindowError, match=r"lacks 1 of 3 windows, the first of them beginning with the tokens \["
    ):
        CachedTeacher(cache)(strange)
    with pytest.raises(InputError, match=f"have 7 tokens and those of the cache .* {LENGTH}"):
        CachedTeacher(cache)(ROWS[:, :7])
    with pytest.raises(InputError, match="token id 40 is outside"):
        CachedTeacher(cache)([[VOCAB] * LENGTH])
    write_cache(teacher, windows(), cache.with_name("hidden"), kept=TargetFormat("hidden"))
    for folder in (cache, cache.with_name("hidden")):
        targets = CachedTeacher(folder, missing="invalid")(strange).validate()
        assert targets.valid.tolist() == [True] * LENGTH + [False] * LENGTH + [True] * LENGTH
        assert torch.equal(targets.select(targets.valid).probs, CachedTeacher(folder)(strange[[0, 2]]).probs)
    with pytest.raises(MissingWindowError):
        CachedTeacher(cache.with_name("hidden"), missing="invalid").logits(strange)


def test_damage_is_refused(cache: Path, tmp_path: Path) -> None:
    assert CachedTeacher(cache).verify() == [f"shard-0000{n}.bin" for n in range(3)]

    def damaged(name: str, change: Callable[[bytearray], Any]) -> Path:
        copy = tmp_path / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(cache, copy)
        content = bytearray((copy / name).read_bytes())
        change(content)
        (copy / name).write_bytes(content)
        return copy

    def flip(at: int) -> Callable[[bytearray], Any]:
        def change(content: bytearray) -> None:
            content[at] ^= 1

        return change

    last = damaged("shard-00001.bin", flip(-1))  # the record of the window 7
    cached = CachedTeacher(last)
    cached(ROWS[:7])
    with pytest.raises(CacheError, match=r"window 3 of the shard .*shard-00001.bin is damaged"):
        cached(ROWS[7])
    with pytest.raises(CacheError, match="SHA-256"):
        cached.verify()
    with pytest.raises(CacheError, match="the head of the shard"):
        CachedTeacher(damaged("shard-00002.bin", flip(20)))
    with pytest.raises(CacheError, match=r"has [0-9,]+ bytes and not"):
        CachedTeacher(damaged("shard-00002.bin", lambda content: content.pop()))
    with pytest.raises(CacheError, match="was changed or damaged"):
        CachedTeacher(
            damaged(MANIFEST, lambda content: content.__setitem__(slice(None), content.replace(b"40", b"41")))
        )
    with pytest.raises(CacheError, match="can't be read"):
        CachedTeacher(damaged(MANIFEST, lambda content: content.clear()))
    (tmp_path / "damaged" / MANIFEST).write_text("{}")
    with pytest.raises(CacheError, match="is no cache of a teacher"):
        CachedTeacher(tmp_path / "damaged")
    (tmp_path / "damaged" / MANIFEST).write_bytes((cache / MANIFEST).read_bytes())
    (tmp_path / "damaged" / "shard-00000.bin").unlink()
    with pytest.raises(CacheError, match="can't be read"):
        CachedTeacher(tmp_path / "damaged")
    with pytest.raises(CacheError, match="holds no cache"):
        CachedTeacher(tmp_path)


def test_a_damaged_head(teacher: NeuralTeacher, tmp_path: Path) -> None:
    write_cache(teacher, windows(), tmp_path / "cache", kept=TargetFormat("hidden"))
    head = tmp_path / "cache" / caching.HEAD
    head.write_bytes(head.read_bytes()[:-1] + b"x")
    with pytest.raises(CacheError, match="its SHA-256 is not that of the manifest"):
        CachedTeacher(tmp_path / "cache")(ROWS)


def test_other_settings_are_refused(cache: Path, teacher: NeuralTeacher, tmp_path: Path) -> None:
    kept = TargetFormat(k=6)
    other = NeuralTeacher(make_model(seed=1), kept=kept)
    for wrong, words, options in (
        (other, "begun with teacher", {"kept": kept}),
        (teacher, "begun with kept", {"kept": TargetFormat(k=5)}),
        (teacher, "begun with shard_windows", {"kept": kept, "shard_tokens": LENGTH}),
    ):
        with pytest.raises(CacheError, match=words):
            write_cache(wrong, windows(), cache, **options)  # type: ignore[arg-type]
    write_cache(other, windows(), cache, kept=kept, overwrite=True)
    assert CachedTeacher(cache).identity() == other.identity()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="is not empty and holds no cache"):
        write_cache(teacher, windows(), tmp_path / "mine", kept=kept)
    with pytest.raises(CacheError, match="holds no cache"):
        write_cache(teacher, windows(), tmp_path / "mine", kept=kept, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    with pytest.raises(OutputError, match="can't be made"):
        write_cache(teacher, windows(), tmp_path / "mine" / "thesis.txt" / "below", kept=kept)
    with pytest.raises(ConfigError, match="rows 0"):
        write_cache(teacher, windows(), tmp_path / "new", rows=0)
    with pytest.raises(ConfigError, match="k is 41 and the vocabulary has 40"):
        write_cache(teacher, windows(), tmp_path / "new", kept=TargetFormat(k=41))
    assert not (tmp_path / "new").exists()


def test_readers_of_another_kind_are_refused(cache: Path, teacher: NeuralTeacher, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 40 tokens and the student or index 41"):
        CachedTeacher(cache, vocab_size=41)
    with pytest.raises(TokenizerError, match="made without a tokenizer"):
        CachedTeacher(cache, student_tokenizer="bytes")
    with pytest.raises(ConfigError, match="only hidden states can be given another format"):
        CachedTeacher(cache, kept=TargetFormat(k=3))
    with pytest.raises(ConfigError, match="no hidden states"):
        CachedTeacher(cache).logits(ROWS)
    with pytest.raises(ConfigError, match="no output embedding"):
        CachedTeacher(cache).output_embedding()
    with pytest.raises(ConfigError, match="missing is 'skip'"):
        CachedTeacher(cache, missing="skip")
    write_cache(teacher, windows(), tmp_path / "hidden", kept=TargetFormat("hidden"))
    with pytest.raises(ConfigError, match="hidden states are no target"):
        CachedTeacher(tmp_path / "hidden", kept=TargetFormat("hidden"))
    words = ByteTokenizer()
    named = NeuralTeacher(make_model(vocab_size=257), tokenizer=words, kept=TargetFormat(k=3))
    write_cache(named, windows(), tmp_path / "named")
    CachedTeacher(tmp_path / "named", student_tokenizer=words, vocab_size=257)
    with pytest.raises(TokenizerError, match=r"was made with the tokenizer 'bytes' .* the student's is 'train:260'"):
        CachedTeacher(tmp_path / "named", student_tokenizer=train_tokenizer(["words, words"] * 9, 260))


def test_pickles_as_its_path(cache: Path, teacher: NeuralTeacher, tmp_path: Path) -> None:
    write_cache(teacher, windows(), tmp_path / "hidden", kept=TargetFormat("hidden"))
    base = torch.softmax(torch.arange(VOCAB) / 9.0, 0)
    for original in (
        CachedTeacher(cache, k=3, base=base, tail="base", missing="invalid"),
        CachedTeacher(tmp_path / "hidden", kept=TargetFormat("top-p", k=9), tail="renormalize"),
    ):
        content = pickle.dumps(original)
        assert len(content) < 3000
        copy = pickle.loads(content)
        assert torch.equal(copy(ROWS).dense(), original(ROWS).dense())
        assert copy.describe() == original.describe()
        assert repr(copy) == repr(original)
        assert len(copy) == COUNT


def dense(cached: CachedTeacher) -> torch.Tensor:
    """The distributions of all rows, (Q, V)."""
    targets = cached(ROWS)
    return targets.logits.softmax(-1) if cached.kept.kind == "all" else targets.dense()


@pytest.mark.parametrize("kind", ["top-k", "hidden"])
def test_a_cache_of_a_padded_model_is_cut(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words, model = ByteTokenizer(), make_model(vocab_size=320)
    kept = TargetFormat(kind, k=320, precision="fp32")
    write_cache(NeuralTeacher(model, tokenizer=words), windows(), tmp_path / "cache", kept=kept)
    whole = TargetFormat("all")
    with torch.no_grad():
        expected = model(input_ids=torch.from_numpy(ROWS)).logits[..., :257].softmax(-1).reshape(-1, 257)
    for options in ({"vocab_size": 257, "student_tokenizer": words}, {"vocab_size": 257}):
        caplog.clear()
        cached = CachedTeacher(tmp_path / "cache", kept=whole if kind == "hidden" else None, **options)
        assert "63 outputs from 257 on are taken as padding" in caplog.text
        assert cached.vocab_size == cached.describe()["vocab_size"] == 257
        torch.testing.assert_close(dense(cached), expected, atol=1e-6, rtol=1e-4)
        copy = pickle.loads(pickle.dumps(cached))
        assert copy.vocab_size == 257
        assert torch.equal(dense(copy), dense(cached))
    assert CachedTeacher(tmp_path / "cache", student_tokenizer=words).vocab_size == 320
    with pytest.raises(ConfigError, match="no tokenizer says that the rest is padding"):
        CachedTeacher(tmp_path / "cache", vocab_size=200)


def test_a_cut_keeps_what_the_model_left_unsaid(tmp_path: Path) -> None:
    """Of few kept tokens: those below V have their share of what isn't dropped, the tail as well."""
    model = make_model(vocab_size=64)
    write_cache(NeuralTeacher(model), windows(), tmp_path / "cache", kept=TargetFormat(k=9, precision="fp32"))
    cached = CachedTeacher(tmp_path / "cache", vocab_size=57)
    targets = cached(ROWS)
    with torch.no_grad():
        probs = model(input_ids=torch.from_numpy(ROWS)).logits.softmax(-1).reshape(-1, 64)
    for position, (row, p) in enumerate(zip(targets.dense(), probs, strict=True)):
        top = p.topk(9)
        kept = top.indices[top.indices < 57]
        dropped = top.values[top.indices >= 57].sum()
        torch.testing.assert_close(row[kept], p[kept] / (1 - dropped), atol=1e-5, rtol=1e-3)
        assert float(row.sum()) == pytest.approx(1, abs=1e-5), position
        assert float(targets.cut_mass[position]) == pytest.approx(
            float((1 - top.values.sum()) / (1 - dropped)), abs=1e-5
        )


def test_a_cache_of_a_tokenizer_with_more_tokens_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = train_tokenizer(["the cat sat on the mat"] * 9, 270)
    more = Tokenizer.from_bytes(words.to_bytes(), spec="chat").backend
    more.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    (tmp_path / "tokenizer.json").write_text(more.to_str())
    size = words.vocab_size
    teacher = NeuralTeacher(make_model(vocab_size=size + 2), tokenizer=tmp_path / "tokenizer.json")
    write_cache(teacher, windows(), tmp_path / "cache", kept=TargetFormat(k=size, precision="fp32"))
    cached = CachedTeacher(tmp_path / "cache", vocab_size=size, student_tokenizer=words)
    assert "2 tokens beyond the student's" in caplog.text
    assert cached.vocab_size == size
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="use the teacher's tokenizer for both"):
        CachedTeacher(tmp_path / "cache", vocab_size=size, student_tokenizer=words)


def test_windows_of_another_length_are_refused_with_what_to_do(cache: Path) -> None:
    for length in (LENGTH - 1, LENGTH + 1):
        with pytest.raises(
            InputError, match=rf"have {length} tokens .* {LENGTH}: cut the text into windows of {LENGTH}"
        ):
            CachedTeacher(cache)(TOKENS[None, :length].astype(np.int64))
    assert not CachedTeacher(cache, missing="invalid")(ROWS[:1, :-1]).valid.any()
