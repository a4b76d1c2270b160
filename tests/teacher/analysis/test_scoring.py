"""Scores of documents, against one question to the index for each."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_index import CorpusIndex, QueryError, build_index
from typer.testing import CliRunner

from corpus_teacher.analysis import score_files
from corpus_teacher.analysis.evaluation import evaluate_index
from corpus_teacher.analysis.score_files import score_documents
from corpus_teacher.analysis.scoring import DocumentScorer, Thresholds, fit_thresholds
from corpus_teacher.cli.main import app
from corpus_teacher.data.indexing import build_index_from_documents, build_token_index
from corpus_teacher.data.pipeline import TokenFile
from corpus_teacher.data.tokenizers import ByteTokenizer
from corpus_teacher.errors import ConfigError, InputError, OutputError

WORDS = ["the", "cat", "sat", "on", "mat", "dog", "ran", "over", "a", "hill", "and", "then", "slept"]


def text(seed: int, size: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, size))


TEXTS = [text(one, 3 + 37 * (one % 9)) for one in range(30)] + ["", "zzzz qqqq", "€"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "index"
    build_index_from_documents([text(100 + one, 200) for one in range(5)], ByteTokenizer(), path, name="t").close()
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": one, "id": f"d{n}"}) + "\n" for n, one in enumerate(TEXTS)))
    return path


def naive(index: CorpusIndex, given: str, estimator: Any) -> tuple[float, int]:
    """Nats and tokens of a document, from one row."""
    stream = np.array([256, *given.encode(), 256])[None]
    chances = index.next_probabilities(stream[:, :-1], stream[:, 1:], estimator=estimator, starts_document=True)
    return float(-np.log(chances).sum()), stream.size - 1


def test_scores_are_those_of_each_document_alone(index: Path) -> None:
    scorer = DocumentScorer(index)
    nats, tokens, num_bytes = scorer.score_texts(TEXTS)
    for number, given in enumerate(TEXTS):
        expected, count = naive(scorer.index, given, scorer.estimator)
        assert nats[number] == pytest.approx(expected, rel=1e-9)
        assert tokens[number] == count
        assert num_bytes[number] == len(given.encode())
    assert len(max(TEXTS, key=len)) > 2 * 512  # rows were cut


def test_without_an_end_token_the_first_token_does_not_count(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    corpus = TokenFile(generator.integers(0, 4, 400).astype(np.uint16), np.array([0, 150, 400]))
    build_token_index(corpus, None, tmp_path / "bare", vocab_size=4).close()
    scorer = DocumentScorer(tmp_path / "bare", estimator="witten-bell", max_order=3)
    documents = [generator.integers(0, 4, size) for size in (0, 1, 2, 700)]
    nats, tokens = scorer.score_tokens(documents)
    assert tokens.tolist() == [0, 0, 1, 699]
    for ids, actual in zip(documents[2:], nats[2:], strict=True):
        chances = scorer.index.next_probabilities(
            ids[None, :-1], ids[None, 1:], estimator=scorer.estimator, starts_document=True
        )
        assert actual == pytest.approx(-np.log(chances).sum(), rel=1e-9)
    with pytest.raises(InputError, match="no tokenizer"):
        scorer.score_texts(["a"])


@pytest.mark.parametrize("end", [None, 3])
def test_from_tables_it_is_the_same(tmp_path: Path, end: int | None) -> None:
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 3, 400).astype(np.uint16)
    tokens[[149, 399]] = 3
    corpus = TokenFile(tokens, np.array([0, 150, 400]))
    build_token_index(corpus, None, tmp_path / "bare", vocab_size=4, end_of_document=end).close()
    documents = [generator.integers(0, 4, size) for size in (0, 1, 700, 0, 2, 0)]
    plain, quick = (DocumentScorer(tmp_path / "bare", tables=tables) for tables in (False, True))
    (nats, tokens_of), expected = (
        pickle.loads(pickle.dumps(quick)).score_tokens(documents),
        plain.score_tokens(documents),
    )
    assert nats == pytest.approx(expected[0], rel=2e-6)
    assert tokens_of.tolist() == expected[1].tolist()
    assert quick.score_tokens([])[0].size == 0
    assert quick.score_tokens([documents[0]])[0].tolist() == [0.0]


def test_tables_where_they_pay(index: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(name: str, **options: Any) -> bool:
        return score_documents(index, [str(source)], tmp_path / name, **options).tables

    assert told("a.parquet")
    assert not told("b.parquet", estimator="witten-bell")
    assert not told("c.parquet", tables=False)
    monkeypatch.setattr(score_files, "_TABLES_PAY", 0)
    assert not told("d.parquet")
    monkeypatch.setattr(score_files, "_TABLES_PAY", 100)
    monkeypatch.setattr(score_files, "free_memory_bytes", lambda: 1000)
    assert not told("e.parquet")
    assert told("f.parquet", tables=True)
    with pytest.raises(QueryError, match=r"a scorer can't hold witten-bell: choose kneser-ney"):
        told("h.parquet", estimator="witten-bell", tables=True)
    shards = tmp_path / "shards"
    build_index(np.arange(8), shards, doc_starts=[0, 4, 8], vocab_size=300, shard_tokens=4).close()
    with pytest.raises(QueryError, match=r"tables are of one index: ask next_probabilities"):
        DocumentScorer(shards, tables=True)
    nats = [pq.read_table(tmp_path / name)["nats"].to_pylist() for name in ("a.parquet", "c.parquet")]
    assert nats[0] == pytest.approx(nats[1], rel=2e-6)


def test_the_file(index: Path, source: Path, tmp_path: Path) -> None:
    summary = score_documents(index, [str(source)], tmp_path / "a.parquet", estimator="witten-bell", max_order=5)
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert len(table["name"]) == summary.documents == summary.new_documents == len(TEXTS)
    assert table["name"][1].endswith("docs.jsonl, line 2")
    scorer = DocumentScorer(index, estimator="witten-bell", max_order=5)
    nats, tokens, num_bytes = scorer.score_texts(TEXTS)
    assert table["nats"] == pytest.approx(nats.tolist())
    assert table["tokens"] == tokens.tolist()
    bits = nats[0] / np.log(2) / num_bytes[0]
    assert table["bits_per_byte"][0] == pytest.approx(bits)
    assert summary.nats_per_token == pytest.approx(nats.sum() / tokens.sum())
    even = sorted(summary.buckets.values())
    assert even[-1] - even[0] <= 2
    assert summary.buckets == {name: table["bucket"].count(name) for name in ("head", "middle", "tail")}
    told = evaluate_index(index, [str(source)], estimators=["witten-bell"], max_orders=[5], top_k=4).scores[0]
    assert summary.nats_per_token == pytest.approx(told.cross_entropy_nats, rel=1e-6)
    assert not (tmp_path / "a.parquet.parts").exists()


def test_any_number_of_threads_and_any_interruption_give_the_same(
    index: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_files, "_PART_CHARS", 2000)
    whole = score_documents(index, [str(source)], tmp_path / "a.parquet", workers=1)
    score_documents(index, [str(source)], tmp_path / "b.parquet", workers=3)
    real, calls = score_files._score, []

    def failing(*arguments: Any) -> tuple[int, int]:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(score_files, "_score", failing)
    with pytest.raises(KeyboardInterrupt):
        score_documents(index, [str(source)], tmp_path / "c.parquet", workers=1)
    left = sorted(one.name for one in (tmp_path / "c.parquet.parts").glob("part*"))
    assert 2 <= len(left) < len(list(score_files._parts(*_stream(index, source))))
    monkeypatch.setattr(score_files, "_score", real)
    with pytest.raises(OutputError, match="overwrite"):
        score_documents(index, [str(source)], tmp_path / "c.parquet", estimator="witten-bell")
    resumed = score_documents(index, [str(source)], tmp_path / "c.parquet", workers=2)
    assert 0 < resumed.new_documents < whole.new_documents == resumed.documents
    contents = {(tmp_path / name).read_bytes() for name in ("a.parquet", "b.parquet", "c.parquet")}
    assert len(contents) == 1


def _stream(index: Path, source: Path) -> tuple[Any, ...]:
    scorer = DocumentScorer(index)
    return scorer, score_files.find_sources([str(source)]), score_files.ReadOptions(), "auto", score_files.ReadLog()


def test_ready_tokens(index: Path, tmp_path: Path) -> None:
    tokens = np.concatenate([np.array([*one.encode(), 256]) for one in TEXTS[:4]]).astype(np.uint16)
    np.save(tmp_path / "tokens.npy", tokens)
    told: list[tuple[str, float, float | None, int]] = []
    summary = score_documents(
        index, [str(tmp_path / "tokens.npy")], tmp_path / "a.parquet", progress=lambda *said: told.append(said)
    )
    size = (tmp_path / "tokens.npy").stat().st_size
    assert told[-1] == ("score", size, size, tokens.size)  # bytes of bytes, so that the time left is one
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["nats"] == pytest.approx(DocumentScorer(index).score_texts(TEXTS[:4])[0].tolist())
    assert summary.bits_per_byte is None


def test_thresholds() -> None:
    assert fit_thresholds(np.arange(9.0)) == Thresholds(3.0, 6.0)
    assert [Thresholds(1.0, 2.0).bucket(one) for one in (0.5, 1.0, 2.0, float("nan"))] == [
        "head",
        "middle",
        "tail",
        "tail",
    ]
    with pytest.raises(ConfigError, match="ascend"):
        Thresholds(2.0, 1.0)
    with pytest.raises(InputError, match="no document"):
        fit_thresholds([float("nan")])


def test_a_filter_for_datasets(index: Path) -> None:
    datasets = pytest.importorskip("datasets")
    scorer = DocumentScorer(index, thresholds=(1.2, 3.0))
    data = datasets.Dataset.from_dict({"text": TEXTS})
    scored = data.map(scorer, batched=True, batch_size=7)
    nats, tokens, _ = scorer.score_texts(TEXTS)
    assert scored["nats_per_token"] == pytest.approx((nats / tokens).tolist())
    kept = data.filter(scorer.keeps("head", "middle"))
    assert list(kept["text"]) == [one for one, bucket in zip(TEXTS, scored["bucket"], strict=True) if bucket != "tail"]
    assert 0 < len(kept) < len(TEXTS)
    again = pickle.loads(pickle.dumps(scorer))
    assert again({"text": TEXTS[3]}) == scorer({"text": TEXTS[3]})
    with pytest.raises(ConfigError, match="bucket"):
        scorer.keeps("body")
    with pytest.raises(ConfigError, match="thresholds"):
        DocumentScorer(index).keeps("head")


@pytest.mark.filterwarnings("default")
def test_a_stage_of_datatrove(index: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor

    from corpus_teacher.analysis.datatrove_stage import CorpusScore

    documents = [Document(one, f"d{number}") for number, one in enumerate(TEXTS) if one]
    stage = CorpusScore(index, thresholds=(1.2, 3.0), keep=["head"])
    kept: list[Any] = []

    def collect(data: Any, rank: int, world_size: int) -> Any:
        for document in data:
            kept.append(document)
            yield document

    LocalPipelineExecutor([documents, stage, collect], logging_dir=str(tmp_path / "logs"), tasks=1).run()
    scorer = DocumentScorer(index, thresholds=(1.2, 3.0))
    said = scorer({"text": [document.text for document in documents]})
    expected = [one.id for one, bucket in zip(documents, said["bucket"], strict=True) if bucket == "head"]
    assert [one.id for one in kept] == expected != []
    assert kept[0].metadata["bucket"] == "head"
    with pytest.raises(ConfigError, match="thresholds"):
        CorpusScore(index, keep=["head"])


def test_the_command(index: Path, source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "s.parquet")
    options = ["teacher", "score", str(index), "--data", str(source), "--out", out, "--name-field", "id"]
    result = CliRunner().invoke(app, [*options, "--thresholds", "1.2,3"])
    assert result.exit_code == 0, result.output
    assert "below 1.2000" in result.stdout
    assert pq.read_table(out)["name"][0].as_py() == "d0"
    again = CliRunner().invoke(app, options)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    said = json.loads(CliRunner().invoke(app, [*options, "--overwrite", "--json"]).stdout)
    assert said["documents"] == len(TEXTS)
    wrong = CliRunner().invoke(app, [*options, "--overwrite", "--thresholds", "x"])
    assert "--thresholds" in wrong.stderr
