"""The page's questions, against the library's own answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from corpus_index import CorpusIndex, ShardedIndex, open_index

from corpus_teacher import trace
from corpus_teacher.analysis.passages import document_lengths, repeated_passages
from corpus_teacher.analysis.query import index_query
from corpus_teacher.analysis.reader import Reader
from corpus_teacher.blend import Components, blend, make_policy
from corpus_teacher.data import BuildOptions, build_index_from_sources, train_tokenizer
from corpus_teacher.data.indexing import build_token_index
from corpus_teacher.data.pipeline import TokenFile
from corpus_teacher.teacher import CorpusTeacher

from ..neural_models import make_model
from .conftest import TEXTS, Client, running


def test_continue_is_the_query(server: Client) -> None:
    said = server.ask("/api/continue", {"index": "animals", "text": "the cat ", "top": 3, "places": 2}).json
    expected = index_query(server.indexes["animals"], "the cat ", top=3, snippets=2)
    assert [(one["text"], one["count"]) for one in said["continuations"]] == [
        (one.text, one.count) for one in expected.continuations
    ]
    assert [one["count"] for one in said["backoff"]] == [one.count for one in expected.backoff]
    assert said["occurrences"][0]["name"] == expected.occurrences[0].name
    assert (said["match_len"], said["cut"]) == (8, 0)
    explained = server.ask("/api/continue?index=animals&text=the+cat+&estimator=witten-bell").json["explained"]
    assert explained["tokens"][0]["probability"] > 0.3


def test_a_long_context_is_cut(server: Client) -> None:
    said = server.ask("/api/continue", {"index": "animals", "text": "x" * 200 + "the cat"}).json
    assert (said["whole"], said["cut"], len(said["tokens"])) == (207, 143, 64)


def test_trace_is_the_trace(server: Client) -> None:
    text = "€ a cat sat on the log"
    said = server.ask("/api/trace", {"index": "animals", "text": text, "min_length": 4}).json
    expected = trace(server.indexes["animals"], text, min_length=4)
    assert [(one["begin"], one["end"], one["count"]) for one in said["spans"]] == [
        (one.begin, one.end, one.count) for one in expected.spans
    ]
    assert said["copied_share"] == expected.copied_share
    assert [one["novel"] for one in said["baseline"]] == [one.novel for one in expected.baseline]
    assert said["begins"][:5] == [0, 0, 0, 1, 2]  # the three bytes of a character stand at one place


def test_teach_is_the_policy_over_the_teacher(server: Client) -> None:
    text = "the cat sat on the throne"
    said = server.ask("/api/teach", {"index": "animals", "text": text, "policy": "long contexts"}).json
    with CorpusIndex.open(server.indexes["animals"]) as index:
        teacher = CorpusTeacher(index, leave_out=None)
        ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        targets = teacher(ids[None, :-1], ids[None, 1:])
        import torch

        labels = torch.from_numpy(ids[1:])
        made = blend(make_policy(said["policy"]), 0, Components(labels, corpus=targets))
        dense = targets.dense()
    assert [one["p"] for one in said["tokens"][1:]] == pytest.approx(targets.probability_of(labels).tolist(), rel=1e-5)
    assert [one["corpus"] for one in said["tokens"][1:]] == pytest.approx(made.weight_of("corpus").tolist())
    for place, one in enumerate(said["tokens"][1:]):
        best = dense[place].topk(5).values.tolist()
        assert [top["p"] for top in one["likeliest"]] == pytest.approx(best, rel=1e-4)
        assert one["corpus"] + one["hard"] == pytest.approx(1)
    own = server.ask("/api/teach", {"index": "animals", "text": text, "policy": {"corpus": 0.25}}).json
    assert own["corpus_share"] == pytest.approx(0.25, abs=0.05)


def test_a_document_is_shown_around_a_place(server: Client) -> None:
    said = server.ask("/api/document", {"index": "animals", "document": 3, "offset": 5, "length": 4}).json
    assert (said["before"], said["match"]) == (TEXTS[3][:5], TEXTS[3][5:9])
    assert (said["before"] + said["match"] + said["after"]).startswith(TEXTS[3])


def test_the_corpus(server: Client) -> None:
    said = server.ask("/api/corpus?index=animals").json
    assert said["num_documents"] == len(TEXTS) == sum(one["documents"] for one in said["lengths"])
    assert said["promise"]["nothing"] < said["promise"]["self"] <= said["promise"]["document"]
    top = said["passages"][0]
    assert top["count"] == sum(text.count(top["text"]) for text in TEXTS) >= 2
    assert server.ask("/api/near-duplicates?index=animals").json["num_documents"] == len(TEXTS)


@pytest.mark.parametrize("shard_tokens", [None, 120])
def test_passages_are_the_most_frequent_ngrams(tmp_path: Path, shard_tokens: int | None) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    options = BuildOptions(tokenizer="bytes", workers=1, shard_tokens=shard_tokens)
    build_index_from_sources([str(source)], tmp_path / "index", options)
    with open_index(tmp_path / "index") as index:
        assert isinstance(index, ShardedIndex) == (shard_tokens is not None)
        found = repeated_passages(index, Reader(index, None, ids=False), 6, top=3)
        ngrams = {text[i : i + 6] for text in TEXTS for i in range(len(text) - 5)}
        counts = {one: sum(text[i:].startswith(one) for text in TEXTS for i in range(len(text))) for one in ngrams}
        assert found[0].count == max(counts.values())
        assert all(counts[one.text] == one.count for one in found)
        lengths = document_lengths(index)
        sizes = np.diff(index.doc_starts)
        for one in lengths:
            assert one.documents == ((sizes >= one.least) & (sizes < one.below)).sum()


@pytest.mark.parametrize(
    ("path", "payload", "status", "what"),
    [
        ("/api/trace", {"index": "animals", "text": ""}, 400, "empty"),
        ("/api/trace", {"index": "animals", "text": "a", "min_length": "x"}, 400, "whole number"),
        ("/api/trace", {"index": "animals", "text": "a " * 20_000}, 413, "20,000"),
        ("/api/continue", {"index": "animals", "text": 3}, 400, "not a text"),
        ("/api/continue", {"index": "animals", "text": "a", "estimator": "/etc/passwd"}, 400, "estimator"),
        ("/api/continue", {"index": "nobody", "text": "a"}, 404, "nobody"),
        ("/api/teach", {"index": "animals", "text": "a"}, 400, "fewer than two"),
        ("/api/teach", {"index": "animals", "text": "abc", "policy": "none"}, 400, "policy"),
        ("/api/teach", {"index": "animals", "text": "abc", "policy": {"neural": 1.0}}, 400, "neural"),
        ("/api/document", {"index": "animals", "document": 99}, 400, "99"),
    ],
)
def test_what_is_refused(server: Client, path: str, payload: dict[str, object], status: int, what: str) -> None:
    answer = server.ask(path, payload)
    assert answer.status == status
    assert what in answer.sentence


def test_an_index_of_ready_tokens_takes_ids(tmp_path: Path) -> None:
    corpus = TokenFile(np.array([1, 2, 3, 1, 2, 4], dtype=np.uint16), np.array([0, 3, 6]))
    build_token_index(corpus, None, tmp_path / "bare", vocab_size=9).close()
    with running(indexes={"bare": tmp_path / "bare"}) as client:
        said = client.ask("/api/continue", {"text": "1 2"}).json
        assert {one["token"] for one in said["continuations"]} == {3, 4}
        assert client.ask("/api/trace", {"text": "8 1 2 3", "min_length": 2}).json["spans"][0]["begin"] == 1
        assert client.ask("/api/continue", {"text": "one"}).status == 400


def test_the_page_and_its_parts_load_nothing_from_elsewhere(server: Client) -> None:
    page = server.ask("/").body.decode()
    assert "<title>corpus-teacher</title>" in page
    for name in ("app.js", "shared.js", "chart.js", "continue.js", "trace.js", "teach.js", "corpus.js", "compare.js"):
        answer = server.ask(f"/{name}")
        assert answer.status == 200
        assert "javascript" in answer.headers["content-type"]
        text = answer.body.decode()
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
        assert "innerHTML" not in text
    assert json.loads(server.ask("/api/indexes").body)["indexes"][0]["name"] == "animals"


def test_a_neural_teacher_beside_the_corpus(tmp_path: Path) -> None:
    import torch
    import transformers

    tokenizer = train_tokenizer(TEXTS * 3, 270)
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    options = BuildOptions(tokenizer=str(tmp_path / "tokenizer.json"), workers=1)
    build_index_from_sources([str(source)], tmp_path / "index", options)
    with CorpusIndex.open(tmp_path / "index") as index:
        model = make_model(vocab_size=int(index.vocab_size))
    model.save_pretrained(tmp_path / "model")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend).save_pretrained(tmp_path / "model")
    with running("--no-access-log", "--neural", str(tmp_path / "model"), indexes={"own": tmp_path / "index"}) as client:
        asked = {"index": "own", "text": "the cat sat on the throne", "policy": "corpus and neural"}
        said = client.ask("/api/teach", asked).json
        none = client.ask("/api/teach", asked | {"policy": {"self": 1.0}})
    ids = torch.from_numpy(tokenizer.encode(asked["text"]).astype(np.int64))
    with torch.no_grad():
        logs = model(ids[None, :-1]).logits[0].log_softmax(-1)
    expected = logs.gather(1, ids[1:, None])[:, 0].exp().tolist()
    tokens = said["tokens"][1:]
    assert [one["neural_p"] for one in tokens] == pytest.approx(expected, rel=1e-4)
    assert [one["neural_likeliest"][0]["p"] for one in tokens] == pytest.approx(logs.exp().amax(-1).tolist(), rel=1e-4)
    assert tokens[0]["corpus"] == pytest.approx(tokens[0]["neural_share"])
    assert tokens[0]["corpus"] + tokens[0]["neural_share"] + tokens[0]["hard"] == pytest.approx(1)
    assert "half neural" in said["policies"]
    assert said["neural"]["name"] == "model"
    assert said["neural"]["nats"] == pytest.approx(-logs.gather(1, ids[1:, None]).mean().item(), rel=1e-4)
    assert (none.status, "a student" in none.sentence) == (400, True)
