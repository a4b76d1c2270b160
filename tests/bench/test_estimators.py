"""The bench of the estimators on a corpus made by hand: what is dropped, what is compared, what is written."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from corpus_index import CorpusIndex, build_index

from bench import estimators as bench

pytestmark = pytest.mark.slow


def save(folder: Path, name: str, documents: list[np.ndarray]) -> None:
    np.concatenate(documents).astype(np.uint16).tofile(folder / f"{name}.u16")
    np.save(folder / f"{name}.doc_starts.npy", np.cumsum([0, *map(len, documents)]).astype(np.int64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty documents, and of other ones two new, one copied whole, and one with a passage that is long enough."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    train = [rng.zipf(1.5, 400) % 90 for _ in range(20)]
    new = [rng.zipf(1.5, size) % 90 for size in (700, 300, 400)]
    save(folder, "train_8k", train)
    save(folder, "heldout_new", [new[0], train[3], new[1], np.append(new[2], train[5][100:160])])
    return folder


def test_copies_are_dropped_and_every_token_is_asked_once(folder: Path, tmp_path: Path) -> None:
    tokens, starts = np.fromfile(folder / "heldout_new.u16", np.uint16), np.load(folder / "heldout_new.doc_starts.npy")
    train, train_starts = np.fromfile(folder / "train_8k.u16", np.uint16), np.load(folder / "train_8k.doc_starts.npy")
    index = build_index(train, tmp_path / "index", doc_starts=train_starts, vocab_size=90)
    shares = [bench.shared_part(index, tokens[a:e].astype(np.int64)) for a, e in itertools.pairwise(starts)]
    assert shares[:3] == [0, 399 / 400, 0]  # a document's last token ends no context
    assert shares[3] == pytest.approx(60 / 460)
    found = bench.rows_of(index, tokens, starts)
    assert (found.dropped, found.dropped_tokens) == (2, 400 + 460)
    assert np.unique(found.documents).tolist() == [0, 2]
    asked = found.next_ids >= 0
    expected = np.concatenate([tokens[1:700], tokens[starts[2] + 1 : starts[3]]])
    assert np.array_equal(found.next_ids[asked], expected)
    assert found.starts_document.tolist() == [True, True, True]  # the second row of the first begins there too
    everything = bench.rows_of(index, tokens, starts, 1.1)
    assert everything.dropped == 0
    whole = bench.rows_of(index, np.resize(tokens[:700], 2000), np.array([0, 2000]))
    p = index.next_probabilities(whole.input_ids, whole.next_ids, starts_document=whole.starts_document)
    assert bench.losses_of(p, whole)[0, 1] == 1999
    assert bench.losses_of(p, whole)[0, 0] == pytest.approx(-np.log(p[whole.next_ids.reshape(-1) >= 0]).sum())


def test_the_interval_holds_the_difference() -> None:
    rng = np.random.default_rng(0)
    baseline = np.stack([rng.uniform(50, 60, 40), np.full(40, 10.0)], axis=1)
    better = baseline * [0.97, 1]
    low, high = bench.interval(better, baseline)
    assert low == pytest.approx(-0.03) == high
    noisy = np.stack([baseline[:, 0] + rng.normal(0, 3, 40), baseline[:, 1]], axis=1)
    low, high = bench.interval(noisy, baseline)
    assert low < 0 < high


def test_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (bench.BASELINE, ("auto", None), ("auto + recall", None))
    monkeypatch.setattr(bench, "ESTIMATORS", wanted)
    out = tmp_path / "rows.json"
    bench.main(["--corpus", f"mine={folder}", "--work", str(tmp_path / "work"), "--out", str(out)])
    printed = capsys.readouterr().out.splitlines()
    answer = json.loads(printed[-1])
    assert answer == json.loads(out.read_text())
    assert [(row["estimator"], row["max_order"]) for row in answer["rows"]] == list(wanted)
    for row in answer["rows"]:
        assert (row["corpus"], row["size"], row["text"], row["dropped_documents"]) == ("mine", "8k", "new", 2)
        assert row["positions"] == 699 + 299
        assert 0 < row["nats"] < np.log(90)
        assert f"| {row['nats']:.4f} |" in "\n".join(printed)
    assert answer["rows"][0]["difference"] == 0
    with CorpusIndex.open(tmp_path / "work" / "mine-8k") as index:
        assert index.num_tokens == 8000
    with pytest.raises(SystemExit):
        bench.main([])
