"""Answers about an index, against counts made by hand from the text itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from corpus_teacher.analysis import query as lookup
from corpus_teacher.data.indexing import build_index_from_documents, build_token_index
from corpus_teacher.data.pipeline import TokenFile
from corpus_teacher.data.tokenizers import ByteTokenizer, train_tokenizer
from corpus_teacher.errors import ConfigError, IndexFormatError, QueryError, TokenizerError

DOCUMENTS = ["abracadabra", "", "a cab, a bra", "€"]
END = 256


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lookup") / "index"
    build_index_from_documents(DOCUMENTS, ByteTokenizer(), path, name="by hand").close()
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of ready tokens, without a tokenizer."""
    path = tmp_path_factory.mktemp("lookup") / "bare"
    corpus = TokenFile(np.array([1, 2, 1, 3], dtype=np.uint16), np.array([0, 4]))
    build_token_index(corpus, None, path, vocab_size=300).close()
    return path


def follows(context: str) -> Counter[int]:
    """What follows a context, document by document."""
    counts: Counter[int] = Counter()
    wanted = context.encode()
    for document in DOCUMENTS:
        tokens = [*document.encode(), END]
        for place in range(len(tokens) - len(wanted)):
            if tokens[place : place + len(wanted)] == list(wanted):
                counts[tokens[place + len(wanted)]] += 1
    return counts


def test_info(index: Path) -> None:
    info = lookup.index_info(index)
    cold = sum(info.size_bytes[f"{name}.bin"] for name in ("order", "tokens", "doc_starts"))
    assert 0 < info.hot_bytes <= info.total_bytes - cold
    num_bytes = sum(len(document.encode()) for document in DOCUMENTS)
    assert (info.num_tokens, info.num_documents, info.vocab_size) == (num_bytes + 4, 4, 257)
    assert (info.end_of_document, info.tokenizer, info.num_bytes) == (END, "bytes", num_bytes)
    on_disk = {file.name: file.stat().st_size for file in index.iterdir()}
    assert info.size_bytes.items() <= on_disk.items()
    assert info.metadata["sources"] == ["by hand"]
    assert len(info.fingerprint) == 64


@pytest.mark.parametrize("text", ["a", "abr", "xxabr", "bra", "", "zz€"])
def test_query_counts_what_the_text_holds(index: Path, text: str) -> None:
    answer = lookup.index_query(index, text, top=3)
    longest = next(text[start:] for start in range(len(text) + 1) if follows(text[start:]))
    counts = follows(longest)
    assert answer.match == longest
    assert answer.match_len == len(longest.encode())
    assert (answer.context_count, answer.distinct) == (counts.total(), len(counts))
    expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    assert [(one.token, one.count) for one in answer.continuations] == expected
    assert sum(one.share for one in answer.continuations) <= 1 + 1e-9
    assert [step.order for step in answer.backoff] == list(range(answer.match_len, -1, -1))
    if text.isascii():
        for step in answer.backoff:
            counts = follows(text[len(text) - step.order :])
            assert (step.count, step.distinct) == (counts.total(), len(counts))
            assert step.best.count == max(counts.values())


@pytest.mark.parametrize("text", ["abr", ""])
def test_query_explains_an_estimator(index: Path, text: str) -> None:
    explained = lookup.index_query(index, text, estimator="witten-bell", max_order=3, top=300).explained
    assert explained is not None
    assert [order.order for order in explained.orders] == list(range(len(text) + 1))
    assert sum(token.probability for token in explained.tokens) == pytest.approx(1)
    for token in explained.tokens:
        assert sum(token.contributions) == pytest.approx(token.probability)
    order, counts = explained.orders[-1], follows(text)
    assert (order.count, order.distinct) == (counts.total(), len(counts))
    assert order.kept == pytest.approx(1 if not text else order.count / (order.count + order.distinct))


def test_query_shows_where_the_match_stands(index: Path) -> None:
    answer = lookup.index_query(index, "bra")
    found = [(one.document, one.position, one.offset) for one in answer.occurrences]
    assert found == [(0, 1, 1), (0, 8, 8), (2, 22, 9)]
    assert answer.num_occurrences == 3
    last = answer.occurrences[-1]
    assert (last.before, last.match, last.after) == ("a cab, a ", "bra", "<|endoftext|>")
    assert not last.cut_before
    assert not last.cut_after
    assert len(lookup.index_query(index, "bra", snippets=1).occurrences) == 1
    assert lookup.index_query(index, "bra", snippets=0).occurrences == []


def test_long_documents_are_cut_around_a_match(tmp_path: Path) -> None:
    build_index_from_documents(["x" * 100 + "!" + "y" * 100], ByteTokenizer(), tmp_path / "i", name="x").close()
    (one,) = lookup.index_query(tmp_path / "i", "!").occurrences
    assert one.cut_before
    assert one.cut_after
    assert set(one.before) == {"x"}
    assert set(one.after) == {"y"}


def test_orders_and_counts_can_be_bounded(index: Path) -> None:
    assert lookup.index_query(index, "abra", max_order=2).match == "ra"
    assert lookup.index_query(index, "abra", min_count=3).match == "bra"
    assert lookup.index_query(index, "abra", max_order=0).match_len == 0


def test_the_tokenizer_must_be_the_index_s_own(index: Path, tmp_path: Path) -> None:
    assert lookup.index_query(index, "a", tokenizer="bytes").match == "a"
    (tmp_path / "tokenizer.json").write_bytes(train_tokenizer(DOCUMENTS, 260).to_bytes())
    with pytest.raises(TokenizerError, match=r"is not the one that .* was built with \('bytes'\)"):
        lookup.index_query(index, "a", tokenizer=str(tmp_path))
    assert lookup.index_query(index, "a", tokenizer=str(index)).match == "a"


def test_an_index_without_a_tokenizer(bare: Path) -> None:
    with pytest.raises(TokenizerError, match="holds no tokenizer; name one"):
        lookup.index_query(bare, "a")
    answer = lookup.index_query(bare, "2, 1", ids=True)
    assert (answer.match, [one.text for one in answer.continuations]) == ("2 1", ["<3>"])
    assert lookup.index_query(bare, "\x02\x01", tokenizer="bytes").match_len == 2


@pytest.mark.parametrize("ids", ["1 x", "1.5", "300", "-1"])
def test_wrong_ids(bare: Path, ids: str) -> None:
    with pytest.raises(QueryError, match=r"300|-1|not a list of token ids"):
        lookup.index_query(bare, ids, ids=True)


@pytest.mark.parametrize("option", [{"max_order": -1}, {"min_count": 0}, {"top": 0}, {"snippets": -1}])
def test_wrong_options(index: Path, option: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="is too small: it must be at least"):
        lookup.index_query(index, "a", **option)  # type: ignore[arg-type]


def test_verify(index: Path) -> None:
    assert lookup.index_verify(index)
    assert len(lookup.index_verify(index, full=True)) >= len(lookup.index_verify(index))


def test_no_index(tmp_path: Path) -> None:
    for question in (lookup.index_info, lookup.index_verify):
        with pytest.raises(IndexFormatError, match=r"no index|not an index"):
            question(tmp_path)
