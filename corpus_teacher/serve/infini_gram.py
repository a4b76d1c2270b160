"""`POST /` in infini-gram's shape: counts, distributions, searches and documents, exact.

The fields and answers are those of infini-gram's API (infini-gram.readthedocs.io); a list of queries is a batch.
Departures, all towards the exact: `max_support` and `max_clause_freq`, which bound samples there, are taken and not
needed, and `approx` is always false. Of a shard `find` gives two segments, as if it was two: occurrences that a token
of their document follows, and those at documents' ends. Separators aren't tokens here: where the index has no
end-of-document token, ends of documents are counted in `document_end_cnt`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex, ShardedIndex
from corpus_index.sharded.asking import ask_all
from starlette.requests import Request
from starlette.responses import Response

from corpus_teacher.analysis.occurrences import met_in, segments_in
from corpus_teacher.serve.indexes import ServedIndex
from corpus_teacher.serve.limits import Limits, RefusedRequest
from corpus_teacher.serve.requests import Json, json_of, state_of
from corpus_teacher.settings import nearest

Ints = npt.NDArray[np.int64]
Cnf = list[list[Ints]]

_MOST_OCCURRENCES = 10_000_000  # of a clause of a CNF, whose places are all looked at
_MOST_LISTED = 100_000
_MOST_JOINED = 1_000
_FIELDS = {
    "index", "corpus", "query_type", "query", "query_ids", "max_support", "max_clause_freq", "max_diff_tokens", "s",
    "rank", "ptr", "list_of_s_and_rank", "max_disp_len", "maxnum", "seed",
}  # fmt: skip


async def infini_gram(request: Request) -> Response:
    """A query, or a list of queries, which is answered by a list."""
    state = state_of(request)
    fields = await json_of(request)
    unknown = next((name for name in fields if name not in _FIELDS), None)
    if unknown is not None:
        raise RefusedRequest(f"there is no field {unknown!r}: {nearest(unknown, _FIELDS)}")
    served = state.served.named(fields.get("index", fields.get("corpus")))
    kind = fields.get("query_type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RefusedRequest(f"query_type is {kind!r}: {nearest(kind, _KINDS)}")
    small = _is_small(kind, fields)
    key = ("infini-gram", served.name) if small else None
    asked = (served, fields, state.options.limits)
    return Json(await state.joiner.ask(key, _answer_all, asked, _cost(fields), small and served.is_here))


def _is_small(kind: str, fields: Mapping[str, Any]) -> bool:
    """Whether the answer takes microseconds, so that a thread may as well answer all of those that wait."""
    if kind not in ("count", "prob", "infgram_prob") or _cost(fields) > _MOST_JOINED:
        return False
    if "query_ids" in fields:
        return _depth(fields["query_ids"]) == 1
    query = fields.get("query", "")
    return isinstance(query, str) and " AND " not in query and " OR " not in query


def _answer_all(asked: Sequence[tuple[ServedIndex, Mapping[str, Any], Limits]]) -> list[Any]:
    """In a worker thread: the answers to the requests of several clients, or of one."""
    return [_answer(*one) for one in asked]


def _cost(fields: Mapping[str, Any]) -> int:
    """Roughly the tokens of a request."""
    given = fields.get("query_ids", fields.get("query"))
    return 1 + (len(given) if isinstance(given, (list, str)) else 0)


def _answer(served: ServedIndex, fields: Mapping[str, Any], limits: Limits) -> Any:
    """In a worker thread: the answer, or those of a batch."""
    kind = str(fields["query_type"])
    queries, is_batch = _queries(served, fields, cnf=kind.endswith("_cnf"))
    if len(queries) > limits.queries:
        raise RefusedRequest(
            f"{len(queries):,} queries are more than {limits.queries:,}: send them in parts", status=413
        )
    answers = []
    for query in queries:
        length = sum(term.size for clause in query for term in clause) if isinstance(query, list) else query.size
        if length > limits.positions:
            raise RefusedRequest(f"a query of {length:,} tokens is longer than {limits.positions:,}", status=413)
        begin = time.perf_counter()
        told = _KINDS[kind](served, query, fields, limits)
        if not isinstance(told, list):
            told |= {**_shown(served, query), "latency": 1000 * (time.perf_counter() - begin)}
        answers.append(told)
    return answers if is_batch else answers[0]


# queries


def _queries(served: ServedIndex, fields: Mapping[str, Any], cnf: bool) -> tuple[list[Ints | Cnf], bool]:
    """The queries of a request, and whether it is a batch of them."""
    if "query_ids" in fields:
        given = fields["query_ids"]
        depth = _depth(given)
        if depth in (3, 4) or (cnf and depth):
            if depth not in (3, 4):
                raise RefusedRequest("query_ids of a CNF is a list (AND) of lists (OR) of lists of token ids")
            many = given if depth == 4 else [given]
            return [_cnf_of_ids(served, one) for one in many], depth == 4
        many = given if depth == 2 else [given]
        return [served.ids_of(one, "query_ids") for one in many], depth == 2
    given = fields.get("query", "")
    many = given if isinstance(given, list) else [given]
    if any(not isinstance(one, str) for one in many):
        raise RefusedRequest("query is no text: give one, a list of texts, or token ids as query_ids")
    kind = str(fields["query_type"])
    may_be_cnf = cnf or kind in ("count", "find", "search_docs")
    read = [
        _cnf_of_text(served, one)
        if cnf or (may_be_cnf and (" AND " in one or " OR " in one))
        else _encoded(served, one)
        for one in many
    ]
    return read, isinstance(given, list)


def _encoded(served: ServedIndex, text: str) -> Ints:
    return served.encode(text) if text else np.empty(0, np.int64)


def _depth(given: Any) -> int:
    """How deep lists are nested."""
    depth = 0
    while isinstance(given, list):
        depth += 1
        given = given[0] if given else None
    return depth


def _cnf_of_text(served: ServedIndex, text: str) -> Cnf:
    """OR binds more than AND."""
    return _checked([[served.encode(term) for term in clause.split(" OR ")] for clause in text.split(" AND ")])


def _cnf_of_ids(served: ServedIndex, given: Any) -> Cnf:
    try:
        return _checked([[served.ids_of(term, "a term of query_ids") for term in clause] for clause in given])
    except TypeError:
        raise RefusedRequest("query_ids of a CNF is a list (AND) of lists (OR) of lists of token ids") from None


def _checked(cnf: Cnf) -> Cnf:
    if not cnf or any(not clause or any(not term.size for term in clause) for clause in cnf):
        raise RefusedRequest("a term of a CNF query is empty: give at least one token for each")
    return cnf


def _plain(query: Ints | Cnf, what: str, least: int = 0) -> Ints:
    if isinstance(query, list):
        raise RefusedRequest(f"{what} takes an n-gram, no CNF")
    if query.size < least:
        raise RefusedRequest(f"{what} needs a query of at least {least} token: it predicts the last one")
    return query


def _shown(served: ServedIndex, query: Ints | Cnf) -> dict[str, Any]:
    """The query as token ids and as tokens."""
    if isinstance(query, list):
        ids = [[term.tolist() for term in clause] for clause in query]
        texts = [[[served.token_text(token) for token in term] for term in clause] for clause in ids]
        return {"token_idsss": ids, "tokensss": texts, "token_ids": ids, "tokens": texts}
    return {"token_ids": query.tolist(), "tokens": [served.token_text(token) for token in query.tolist()]}


def _bounded(fields: Mapping[str, Any], name: str, default: int, most: int, least: int = 1) -> int:
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise RefusedRequest(f"{name} is {value!r}: give a whole number from {least} to {most:,}")
    return value


# counts and distributions


def _count(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    if isinstance(query, list):
        return _count_cnf(served, query, fields, limits)
    return {"count": served.index.count(query), "approx": False}


def _count_cnf(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    return {"count": sum(places.size for places in _places_of_cnf(served, query, fields)), "approx": False}


def _prob(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    ids = _plain(query, "prob", 1)
    return _probability(served.index, ids[:-1], int(ids[-1]))


def _probability(index: CorpusIndex, prompt: Ints, token: int) -> dict[str, Any]:
    prompt_cnt = index.count(prompt)
    if prompt_cnt == 0:
        return {"prompt_cnt": 0, "cont_cnt": 0, "prob": -1.0}
    cont_cnt = index.count(np.append(prompt, token))
    return {"prompt_cnt": prompt_cnt, "cont_cnt": cont_cnt, "prob": cont_cnt / prompt_cnt}


def _ntd(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    return _distribution(served, _plain(query, "ntd"))


def _distribution(served: ServedIndex, ids: Ints) -> dict[str, Any]:
    """All continuations of exactly this n-gram."""
    prompt_cnt = served.index.count(ids)
    found = served.index.next_tokens(ids)
    pairs: list[tuple[int, int]] = []
    if prompt_cnt and found.match_len == ids.size:
        pairs = list(zip(found.token_ids.tolist(), found.counts.tolist(), strict=True))
    ends = prompt_cnt - sum(count for _, count in pairs)
    told = {
        str(token): {"cont_cnt": count, "prob": count / prompt_cnt, "token": served.token_text(token)}
        for token, count in pairs
    }
    return {"prompt_cnt": prompt_cnt, "result_by_token_id": told, "document_end_cnt": ends, "approx": False}


def _longest(index: CorpusIndex, ids: Ints) -> int:
    """Tokens of the longest suffix that occurs: a longer one occurs only if a shorter one does."""
    lo, hi = 0, 1
    while hi <= ids.size and index.count(ids[ids.size - hi :]):
        lo, hi = hi, 2 * hi
    hi = min(hi, ids.size + 1)
    while hi - lo > 1:
        middle = (lo + hi) // 2
        lo, hi = (middle, hi) if index.count(ids[ids.size - middle :]) else (lo, middle)
    return lo


def _infgram_prob(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    ids = _plain(query, "infgram_prob", 1)
    suffix = ids[:-1][ids.size - 1 - _longest(served.index, ids[:-1]) :]
    told = _probability(served.index, suffix, int(ids[-1]))
    return {**told, "suffix_len": suffix.size, "longest_suffix": served.decode(suffix)}


def _infgram_ntd(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    ids = _plain(query, "infgram_ntd")
    suffix = ids[ids.size - _longest(served.index, ids) :]
    told = _distribution(served, suffix)
    return {**told, "suffix_len": suffix.size, "longest_suffix": served.decode(suffix)}


# places


def _shards(index: CorpusIndex) -> list[CorpusIndex]:
    """The indexes whose ranks are their own: of several shards each."""
    return list(index.shards) if isinstance(index, ShardedIndex) else [index]


def _origins(index: CorpusIndex) -> tuple[Ints, Ints]:
    """Where each shard's tokens and documents begin."""
    shards = _shards(index)
    tokens = np.cumsum([0, *(shard.num_tokens for shard in shards)])
    documents = np.cumsum([0, *(shard.num_documents for shard in shards)])
    return tokens.astype(np.int64), documents.astype(np.int64)


def _place(shard: CorpusIndex, is_end: bool, rank: int, length: int) -> int:
    """Where in a shard the occurrence of a rank begins."""
    order = shard.array("order")
    if is_end:
        place = int(shard.array("endings")[rank] & np.uint64(2**32 - 1))
        return int(order[place]) - max(0, length - 1)
    return int(order[rank]) - length


def _find(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    if isinstance(query, list):
        return _find_cnf(served, query, fields, limits)
    found = ask_all(partial(segments_in, ids=query), _shards(served.index))
    segments = [pair for of_shard in found for pair in of_shard]
    return {"cnt": sum(hi - lo for lo, hi in segments), "segment_by_shard": [list(pair) for pair in segments]}


def _find_cnf(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    places = _places_of_cnf(served, query, fields)
    count = sum(one.size for one in places)
    if count > _MOST_LISTED:
        raise RefusedRequest(
            f"the query is met at {count:,} places, and at most {_MOST_LISTED:,} are listed: count them, or ask for a "
            "rarer one",
            status=413,
        )
    # of each shard's two: ranks that a token follows, and ends of documents, of which a CNF makes no difference
    listed: list[list[int]] = []
    for one in places:
        listed += [one.tolist(), []]
    return {"cnt": count, "approx": False, "ptrs_by_shard": listed}


def _places_of_cnf(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any]) -> list[Ints]:
    """Of each shard where a CNF is met: the first place of each group of terms that stand near in one document.

    As infini-gram looks for it: from the rarest clause on, the nearest occurrence of the next one on either side.
    """
    cnf = query if isinstance(query, list) else [[query]]
    _checked(cnf)
    most = _bounded(fields, "max_diff_tokens", 100, 1_000_000)
    for clause in cnf:
        count = sum(served.index.count(term) for term in clause)
        if count > _MOST_OCCURRENCES:
            raise RefusedRequest(
                f"a clause occurs {count:,} times, and all places of at most {_MOST_OCCURRENCES:,} are looked at: ask "
                "for a rarer one",
                status=413,
            )
    return ask_all(partial(met_in, cnf=cnf, most=most), _shards(served.index))


# documents


def _document(served: ServedIndex, shard: int, place: int, query: Ints | Cnf, shown: int) -> dict[str, Any]:
    """A document around a place of a shard."""
    index = _shards(served.index)[shard]
    tokens, documents = _origins(served.index)
    number = int(index.document_of(np.array([place]))[0])
    begin, end = int(index.doc_starts[number]), int(index.doc_starts[number + 1])
    text = index.tokens
    if end > begin and int(text[end - 1]) == served.index.end_of_document:
        end -= 1
    first, stop = max(begin, place - shown // 2), min(end, place + (shown + 1) // 2)
    ids = np.asarray(text[first : max(first, stop)]).astype(np.int64)
    number += int(documents[shard])
    info = served.index.document(number)
    return {
        "doc_ix": number,
        "doc_len": end - begin,
        "disp_len": ids.size,
        "needle_offset": place - first,
        "metadata": json.dumps({"name": info.name, **info.fields}, ensure_ascii=False, default=str),
        "token_ids": ids.tolist(),
        "spans": _spans(served, ids, query),
        "text": served.decode(ids),
        "position": int(tokens[shard]) + place,
        "blocked": False,
    }


def _spans(served: ServedIndex, ids: Ints, query: Ints | Cnf) -> list[list[Any]]:
    """Pieces of a text, those that a clause matches with its number."""
    clauses = query if isinstance(query, list) else [[query]]
    clause_of = np.full(ids.size, -1, np.int64)
    for number, clause in enumerate(clauses):
        for term in (one for one in clause if 0 < one.size <= ids.size):
            windows = np.lib.stride_tricks.sliding_window_view(ids, term.size)
            for place in np.flatnonzero((windows == term).all(1)):
                clause_of[place : place + term.size] = number
    edges = np.flatnonzero(np.diff(clause_of)) + 1
    pieces = zip(np.split(ids, edges), np.split(clause_of, edges), strict=True)
    return [[served.decode(part), None if own[0] < 0 else str(own[0])] for part, own in pieces if part.size]


def _shard_of(served: ServedIndex, s: Any) -> tuple[int, bool]:
    count = 2 * len(_shards(served.index))
    if not isinstance(s, int) or isinstance(s, bool) or not 0 <= s < count:
        raise RefusedRequest(f"s is {s!r}: give a whole number from 0 to {count - 1}, as find lists the segments")
    return s // 2, bool(s % 2)


def _doc_by_rank(served: ServedIndex, query: Ints | Cnf, s: Any, rank: Any, shown: int) -> dict[str, Any]:
    shard, is_end = _shard_of(served, s)
    index = _shards(served.index)[shard]
    most = int(index.array("endings").size if is_end else index.num_tokens)
    if not isinstance(rank, int) or isinstance(rank, bool) or not 0 <= rank < most:
        raise RefusedRequest(f"rank is {rank!r}: give a whole number from 0 to {most - 1}, of a segment that find gave")
    length = 0 if isinstance(query, list) else query.size
    place = _place(index, is_end, rank, length)
    return _document(served, shard, max(place, 0), query, shown)


def _get_doc_by_rank(
    served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits
) -> dict[str, Any]:
    shown = _bounded(fields, "max_disp_len", 1000, limits.shown_tokens)
    return _doc_by_rank(served, query, fields.get("s"), fields.get("rank"), shown)


def _get_docs_by_ranks(
    served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits
) -> dict[str, Any]:
    shown = _bounded(fields, "max_disp_len", 1000, limits.shown_tokens)
    listed = fields.get("list_of_s_and_rank")
    if not isinstance(listed, list) or any(not isinstance(one, list) or len(one) != 2 for one in listed):
        raise RefusedRequest("list_of_s_and_rank is no list of pairs: give [[s, rank], …]")
    if len(listed) > limits.documents:
        raise RefusedRequest(f"{len(listed):,} documents are more than {limits.documents:,}: ask in parts", status=413)
    return {"documents": [_doc_by_rank(served, query, s, rank, shown) for s, rank in listed]}


def _get_doc_by_ptr(
    served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits
) -> dict[str, Any]:
    shown = _bounded(fields, "max_disp_len", 1000, limits.shown_tokens)
    shard, _ = _shard_of(served, fields.get("s"))
    place = _bounded(fields, "ptr", -1, int(_shards(served.index)[shard].num_tokens) - 1, 0)
    return _document(served, shard, place, query, shown)


def _search_docs(served: ServedIndex, query: Ints | Cnf, fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Some occurrences, drawn at random, each at most once; the same ones of a seed."""
    shown = _bounded(fields, "max_disp_len", 1000, limits.shown_tokens)
    wanted = _bounded(fields, "maxnum", 1, limits.documents)
    seed = None if fields.get("seed") is None else _bounded(fields, "seed", 0, 2**63 - 1, 0)
    if isinstance(query, list):
        lists: list[Any] = [(shard, places) for shard, places in enumerate(_places_of_cnf(served, query, fields))]
        sizes = [places.size for _, places in lists]
    else:
        lists = []
        segments = ask_all(partial(segments_in, ids=query), _shards(served.index))
        for shard, (inside, ends) in enumerate(segments):
            lists += [(shard, (False, inside)), (shard, (True, ends))]
        sizes = [pair[1][1][1] - pair[1][1][0] for pair in lists]
    edges = np.cumsum([0, *sizes])
    count = int(edges[-1])
    drawn = np.random.default_rng(seed).choice(count, min(wanted, count), replace=False) if count else np.empty(0)
    documents = []
    for number in drawn.tolist():
        part = int(np.searchsorted(edges, number, side="right")) - 1
        shard, where = lists[part]
        if isinstance(query, list):
            place = int(where[number - int(edges[part])])
        else:
            is_end, (lo, _) = where
            place = _place(_shards(served.index)[shard], is_end, lo + number - int(edges[part]), query.size)
        documents.append(_document(served, shard, place, query, shown))
    return {"cnt": count, "approx": False, "idxs": drawn.tolist(), "documents": documents}


_KINDS: dict[str, Callable[[ServedIndex, Ints | Cnf, Mapping[str, Any], Limits], dict[str, Any]]] = {
    "count": _count,
    "count_cnf": _count_cnf,
    "find": _find,
    "find_cnf": _find_cnf,
    "prob": _prob,
    "ntd": _ntd,
    "infgram_prob": _infgram_prob,
    "infgram_ntd": _infgram_ntd,
    "get_doc_by_rank": _get_doc_by_rank,
    "get_docs_by_ranks": _get_docs_by_ranks,
    "get_doc_by_ptr": _get_doc_by_ptr,
    "search_docs": _search_docs,
}
