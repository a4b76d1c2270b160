"""The file of an estimator is whole or not there, a changed one is refused, and older ones are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from corpus_index import CorpusIndex, Estimator, IndexExistsError, IndexFormatError, load_estimator

from ...faults import run_faults

Make = Callable[..., CorpusIndex]
DOCUMENTS = [[1, 2, 3, 1, 2], [1, 2, 2, 0], [3, 3, 1]]


def test_an_estimator_is_old_or_new_after_any_fault_and_a_rerun_mends(tmp_path: Path) -> None:
    run_faults(
        tmp_path / "work",
        """
        import os
        from corpus_index import Estimator, files
        from corpus_index.estimators import kept
        old, new = Estimator("mle", fingerprint="old"), Estimator("mle", 3, fingerprint="new", facts={"nats": 1.5})
        def prepare(folder):
            old.save(folder / "kept.json")
        def operate(folder):
            new.save(folder / "kept.json")
        def check(folder, finished):
            assert kept.read_fields(folder / "kept.json")["fingerprint"] in (("new",) if finished else ("old", "new"))
            operate(folder)
            assert kept.read_fields(folder / "kept.json")["fingerprint"] == "new"
            assert os.listdir(folder) == ["kept.json"]
        """,
        arguments="sizes=(0, 1, 100, 400)",
    )


def test_no_changed_bit_is_taken_for_another_estimator(make_index: Make, tmp_path: Path) -> None:
    index, path = make_index(DOCUMENTS, vocab_size=5), tmp_path / "kept.json"
    fitted = index.fitted("modified-kneser-ney", 2)
    fitted.save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with suppress(IndexFormatError):
            assert load_estimator(path, index) == fitted  # white space


def test_a_file_without_a_checksum_is_read(make_index: Make, tmp_path: Path) -> None:
    index, path = make_index(DOCUMENTS, vocab_size=5), tmp_path / "kept.json"
    fitted = index.fitted("auto", 2)
    fitted.save(path)
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps(content))
    assert load_estimator(path, index) == fitted


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strengths", "x"),
        ("strengths", [["a"]]),
        ("strengths", [1]),
        ("discounts", [[True, 1, 1]]),
        ("ratios", {"a": 1}),
        ("ratios", [[1e400]]),
        ("max_order", 10**30),
        ("max_order", 1.5),
        ("max_order", True),
        ("alpha", "0.4"),
        ("k", None),
        ("name", ["mle"]),
        ("facts", []),
    ],
)
def test_a_wrong_field_is_named(make_index: Make, tmp_path: Path, key: str, value: Any) -> None:
    index, path = make_index(DOCUMENTS, vocab_size=5), tmp_path / "kept.json"
    Estimator("mle", fingerprint=index.fingerprint).save(path)
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps({**content, key: value}))
    with pytest.raises(IndexFormatError, match=f"kept.json is not an estimator .*'{key}'"):
        load_estimator(path, index)


def test_facts_of_any_keys_are_kept(make_index: Make, tmp_path: Path) -> None:
    index, path = make_index(DOCUMENTS, vocab_size=5), tmp_path / "kept.json"
    Estimator("mle", fingerprint=index.fingerprint, facts={10: float("nan"), 9: (1, 2)}).save(path)
    assert load_estimator(path, index).facts["9"] == [1, 2]


def test_a_file_is_replaced_only_where_that_is_asked_for(make_index: Make, tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("mine")
    with pytest.raises(IndexExistsError, match="exists already: choose another name, or ask to overwrite it"):
        Estimator("mle").save(path, overwrite=False)
    assert path.read_text() == "mine"
    (tmp_path / "pipe.json").mkdir()
    with pytest.raises(IndexFormatError, match="not a regular file"):
        load_estimator(tmp_path / "pipe.json", make_index(DOCUMENTS, vocab_size=5))
