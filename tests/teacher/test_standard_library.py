"""The split of the standard library: by name, without near-duplicates, without tests and broken files."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus_teacher.errors import InputError
from corpus_teacher.standard_library import _long_lines, _shared_chars, split_standard_library


def _library(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"def function_of_this_module():\n    return {name!r} + 'some more text'\n", encoding="utf-8")


def test_the_real_one() -> None:
    split = split_standard_library(max_bytes=1_000_000)
    train = {document.origin for document in split.train}
    held_out = {document.origin for document in split.held_out}
    assert held_out
    assert not train & held_out
    assert not (train | held_out) & set(split.too_similar)
    assert 500_000 < split.train_bytes < 1_200_000
    assert split.held_out_bytes > 10_000
    assert any(name.startswith("help/") for name in train)
    known = set(_long_lines(split.train))
    assert all(_shared_chars(document, known) <= 0.1 for document in split.held_out)
    assert split == split_standard_library(max_bytes=1_000_000)


def test_skips_tests_packages_and_broken_files(tmp_path: Path) -> None:
    _library(tmp_path, [f"module_{number}.py" for number in range(40)])
    _library(
        tmp_path,
        ["test/test_a.py", "pkg/tests/b.py", "site-packages/c.py", "encodings/d.py", "pydoc_data/topics.py"],
    )
    (tmp_path / "broken.py").write_bytes(b"caf\xe9 = 1\n")
    (tmp_path / "empty.py").write_text("\n")
    (tmp_path / "notes.txt").write_text("no code")
    split = split_standard_library(root=tmp_path, held_out_share=0.3, max_shared=1.0)
    code = {d.origin for d in [*split.train, *split.held_out] if not d.origin.startswith("help/")}
    assert code == {f"module_{number}.py" for number in range(40)}


def test_a_near_duplicate_is_in_neither_half(tmp_path: Path) -> None:
    _library(tmp_path, [f"module_{number}.py" for number in range(40)])
    distinct = tmp_path / "module_7.py"
    # every file shares its first line, which is more than a tenth of it
    with pytest.raises(InputError, match="too few to split"):
        split_standard_library(root=tmp_path, held_out_share=0.999)
    for number in range(40):
        (tmp_path / f"module_{number}.py").write_text(f"value_number_{number:05d} = {number:030d}\n" * 3)
    everything = split_standard_library(root=tmp_path, held_out_share=0.3)
    twin = next(d for d in everything.held_out if not d.origin.startswith("help/"))
    other = next(d for d in everything.train if not d.origin.startswith("help/"))
    (tmp_path / other.origin).write_text(twin.text)
    split = split_standard_library(root=tmp_path, held_out_share=0.3)
    assert twin.origin in split.too_similar
    assert other.origin in {document.origin for document in split.train}
    assert distinct.exists()


def test_no_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.py files"):
        split_standard_library(root=tmp_path)
