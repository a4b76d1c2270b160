"""infini-gram's shape: against infini-gram itself where it is installed, and against plain Python everywhere."""

from __future__ import annotations

import random
import subprocess
import sys
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from corpus_index import build_index

from tests.teacher.serve.conftest import TEXTS, Client, running

pytestmark = pytest.mark.slow

END, VOCAB_SIZE, SEPARATOR = 9, 12, 65_535


def documents() -> list[list[int]]:
    rng = random.Random(3)
    made: list[list[int]] = []
    for number in range(40):
        made.append(rng.choices(range(1, 8), range(8, 1, -1), k=rng.randint(1, 25)))
        if number % 4 == 3:
            made[-1] += made[rng.randrange(number)]
    return made


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The same documents with an end token, without one, and in shards."""
    folder, texts = tmp_path_factory.mktemp("ids"), documents()
    indexes = {}
    for name, end in (("ended", [END]), ("bare", [])):
        starts = np.cumsum([0, *(len(text) + len(end) for text in texts)])
        tokens = np.array([token for text in texts for token in (*text, *end)])
        options: dict[str, Any] = {"end_of_document": END} if end else {}
        build_index(tokens, folder / name, doc_starts=starts, vocab_size=VOCAB_SIZE, workers=1, **options).close()
        indexes[name] = folder / name
    starts = np.cumsum([0, *(len(text) for text in texts)])
    tokens = np.array([token for text in texts for token in text])
    options = {"doc_starts": starts, "vocab_size": VOCAB_SIZE, "workers": 1, "shard_tokens": 200}
    build_index(tokens, folder / "shards", **options).close()
    indexes["shards"] = folder / "shards"
    with running("--no-access-log", "--max-order", "3", indexes=indexes) as made:
        yield made


def queries() -> list[list[int]]:
    rng, texts, made = random.Random(5), documents(), []
    for number in range(80):
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        found, odd = text[start : start + rng.randint(1, 6)], rng.choices(range(1, 9), k=rng.randint(1, 3))
        made.append([found, odd, odd + found, text[-2:]][number % 4])
    return made


def places(ngram: list[int]) -> list[tuple[int, int]]:
    return [
        (number, place)
        for number, text in enumerate(documents())
        for place in range(len(text) - len(ngram) + 1)
        if text[place : place + len(ngram)] == ngram
    ]


def ask(client: Client, index: str, query_type: str, **fields: Any) -> Any:
    answer = client.ask("/", {"index": index, "query_type": query_type, **fields})
    assert answer.status == 200, answer.body
    return answer.json


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("infini_gram")
    from infini_gram.engine import InfiniGramEngine

    folder = tmp_path_factory.mktemp("infini-gram")
    tokens, offsets = array("H", [SEPARATOR]), array("Q")
    for text in documents():
        offsets.append(2 * len(tokens) - 2)
        tokens.extend([*text, SEPARATOR])
    (folder / "tokenized.0").write_bytes(tokens.tobytes())
    (folder / "offset.0").write_bytes(offsets.tobytes())
    command = [sys.executable, "-m", "infini_gram.indexing", "--token_dtype", "u16", "--cpus", "1", "--mem", "1"]
    for option in ("data_dir", "save_dir", "temp_dir"):
        command += [f"--{option}", str(folder / "temp" if option == "temp_dir" else folder)]
    done = subprocess.run([*command, "--ulimit", "256"], capture_output=True, text=True)
    if not (folder / "table.0").exists():
        pytest.skip(f"infini-gram makes no index here: {done.stderr[-200:]}")
    return InfiniGramEngine(index_dir=str(folder), eos_token_id=END, vocab_size=VOCAB_SIZE, token_dtype="u16")


@pytest.mark.live
@pytest.mark.parametrize("index", ["ended", "bare", "shards"])
def test_equals_infini_gram(client: Client, engine: Any, index: str) -> None:
    asked = queries()
    for kind in ("count", "prob", "ntd", "infgram_prob", "infgram_ntd", "find"):
        told = ask(client, index, kind, query_ids=asked)
        assert len(told) == len(asked)
        for ids, ours in zip(asked, told, strict=True):
            assert ours["token_ids"] == ids
            if kind in ("prob", "infgram_prob"):
                theirs = getattr(engine, kind)(prompt_ids=ids[:-1], cont_id=ids[-1])
                if ids[:-1] == [] or theirs.get("suffix_len") == 0:
                    continue  # it counts separators among all tokens
            elif kind in ("ntd", "infgram_ntd"):
                theirs = getattr(engine, kind)(prompt_ids=ids, max_support=100_000)
                by_token = {str(token): one for token, one in theirs.pop("result_by_token_id").items()}
                if theirs.get("suffix_len") == 0:
                    continue
                mine = {
                    token: {name: one[name] for name in ("cont_cnt", "prob")}
                    for token, one in ours["result_by_token_id"].items()
                }
                if index != "ended":
                    ends = by_token.pop(str(END), {"cont_cnt": 0})
                    assert ours["document_end_cnt"] == ends["cont_cnt"]
                assert mine == by_token
            else:
                theirs = getattr(engine, kind)(input_ids=ids)
                theirs.pop("segment_by_shard", None)
            assert {name: ours[name] for name in theirs} == theirs, (kind, ids)


@pytest.mark.live
@pytest.mark.parametrize("index", ["ended", "bare"])
def test_cnf_equals_infini_gram(client: Client, engine: Any, index: str) -> None:
    rng = random.Random(7)
    starts = np.cumsum([0, *(len(text) + (index == "ended") for text in documents())])
    for number in range(60):
        cnf = [
            [rng.choices(range(1, 8), k=rng.randint(1, 2)) for _ in range(rng.randint(1, 2))]
            for _ in range(rng.randint(1, 3))
        ]
        near = [1, 3, 100][number % 3]
        theirs = engine.find_cnf(cnf=cnf, max_diff_tokens=near, max_clause_freq=100_000)
        ours = ask(client, index, "find_cnf", query_ids=cnf, max_diff_tokens=near)
        assert (
            ours["cnt"]
            == theirs["cnt"]
            == ask(client, index, "count_cnf", query_ids=cnf, max_diff_tokens=near)["count"]
        )
        assert ours["approx"] is theirs["approx"] is False
        mine = np.array(ours["ptrs_by_shard"][0], np.int64)
        document = np.searchsorted(starts, mine, side="right") - 1
        separators = 1 if index == "bare" else 0
        as_theirs = 2 * (mine + 1 + separators * document)
        assert sorted(as_theirs.tolist()) == sorted(one for shard in theirs["ptrs_by_shard"] for one in shard)


@pytest.mark.parametrize("index", ["ended", "bare", "shards"])
def test_every_rank_is_an_occurrence(client: Client, index: str) -> None:
    texts = documents()
    for ids in queries()[:24]:
        found = ask(client, index, "find", query_ids=ids)
        pairs = [[s, rank] for s, (lo, hi) in enumerate(found["segment_by_shard"]) for rank in range(lo, hi)]
        if len(pairs) > 100:
            continue
        expected = places(ids)
        assert found["cnt"] == len(pairs) == len(expected)
        told = ask(client, index, "get_docs_by_ranks", query_ids=ids, list_of_s_and_rank=pairs, max_disp_len=6)
        seen = []
        for one in told["documents"]:
            begin = one["needle_offset"]
            assert one["doc_len"] == len(texts[one["doc_ix"]])
            assert one["disp_len"] == len(one["token_ids"]) <= 6
            shown = one["token_ids"][begin : begin + len(ids)]
            assert shown == ids[: len(shown)]
            assert shown
            text = texts[one["doc_ix"]]
            start = next(at for at in range(len(text)) if text[at : at + len(one["token_ids"])] == one["token_ids"])
            seen.append((one["doc_ix"], start + begin))
        assert {number for number, _ in seen} == {number for number, _ in expected}
        if pairs:
            alone = ask(
                client, index, "get_doc_by_rank", query_ids=ids, s=pairs[0][0], rank=pairs[0][1], max_disp_len=6
            )
            assert alone["doc_ix"] == told["documents"][0]["doc_ix"]
            drawn = ask(client, index, "search_docs", query_ids=ids, maxnum=100, seed=1)
            assert drawn["cnt"] == len(drawn["documents"]) == len(pairs)
            assert sorted(one["doc_ix"] for one in drawn["documents"]) == sorted(number for number, _ in expected)
            assert drawn == {
                **ask(client, index, "search_docs", query_ids=ids, maxnum=100, seed=1),
                "latency": drawn["latency"],
            }


def test_queries_in_words(server: Client) -> None:
    joined = "\n".join(TEXTS)
    told = ask(server, "animals", "count", query=["the cat", "cat", "nothing"])
    assert [one["count"] for one in told] == [joined.count("the cat"), joined.count("cat"), 0]
    assert ask(server, "animals", "count", query="")["count"] == sum(len(text) + 1 for text in TEXTS)
    near: dict[str, Any] = {"query": "king OR throne AND cat", "max_diff_tokens": 20}
    both = ask(server, "animals", "count", **near)
    assert both["count"] == ask(server, "animals", "count_cnf", **near)["count"] > 0
    assert both["tokensss"][0][1] == list("throne")
    found = ask(server, "animals", "search_docs", query="king AND queen", maxnum=5)
    assert found["cnt"] == 1
    assert found["documents"][0]["doc_ix"] == 4
    assert ["king", "0"] in found["documents"][0]["spans"]
    assert "".join(text for text, _ in found["documents"][0]["spans"]) == TEXTS[4]
    longest = ask(server, "animals", "infgram_ntd", query="zebras sat on the l")
    assert longest["longest_suffix"] == " sat on the l"
    assert longest["result_by_token_id"]["111"]["token"] == "o"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"query_type": "cnt"}, "count"),
        ({"query_type": "count", "query": 3}, "query"),
        ({"query_type": "count", "query_ids": [1, 999]}, "999"),
        ({"query_type": "prob", "query_ids": []}, "prob"),
        ({"query_type": "prob", "query_ids": [[[1]]]}, "CNF"),
        ({"query_type": "find_cnf", "query_ids": [1, 2]}, "CNF"),
        ({"query_type": "count_cnf", "query_ids": [[[]]]}, "empty"),
        ({"query_type": "get_doc_by_rank", "s": 9, "rank": 0}, "s is 9"),
        ({"query_type": "get_doc_by_rank", "s": 0, "rank": -1}, "rank"),
        ({"query_type": "get_docs_by_ranks", "list_of_s_and_rank": [1]}, "pairs"),
        ({"query_type": "search_docs", "query": "a", "maxnum": 0}, "maxnum"),
        ({"query_type": "count", "qery": "a"}, "query"),
        ({"query_type": "count", "index": "tale"}, "tales"),
    ],
)
def test_what_is_refused(server: Client, fields: dict[str, Any], words: str) -> None:
    answer = server.ask("/", {"index": "tales", **fields})
    assert 400 <= answer.status < 500
    assert words in answer.sentence
    assert isinstance(answer.json["error"], str)
