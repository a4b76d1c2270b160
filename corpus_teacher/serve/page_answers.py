"""What the page asks: plain functions of an open index and a request's fields, answered as JSON can hold it.

Continue, Trace, Teach and Corpus, one function each. Texts are cut to what a person looks at; programs have their own
routes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from corpus_teacher.analysis.duplicates import repeats_of
from corpus_teacher.analysis.novelty import corpus_novelty
from corpus_teacher.analysis.passages import document_lengths, repeated_passages
from corpus_teacher.analysis.query import answer_query, parse_ids, text_bytes
from corpus_teacher.analysis.reader import Reader
from corpus_teacher.analysis.trace import trace
from corpus_teacher.blend import Components, Reason, blend, make_policy
from corpus_teacher.errors import ConfigError
from corpus_teacher.serve.indexes import ServedIndex
from corpus_teacher.serve.limits import RefusedRequest
from corpus_teacher.targets.soft import SoftTargets

CONTEXT_TOKENS = 64
"""Of a context that is continued: its last ones."""

TRACED_TOKENS = 20_000
TAUGHT_TOKENS = 2_000

_BESIDE = 400  # tokens of a document that are shown before and after a place
_SHOWN_SPANS = 2_000
_PROMISE_ROWS, _PROMISE_TOKENS = 8, 256

Fields = Mapping[str, Any]
_Kept = TypeVar("_Kept")

POLICIES: dict[str, dict[str, Any]] = {
    "half": {"corpus": 0.5},
    "evidence": {"corpus": {"weight": 0.9, "evidence": [{"by": "count", "half": 4}]}},
    "long contexts": {"corpus": 0.5, "min_match_len": 3, "fallbacks": ["shorter", "hard"]},
    "where the corpus is unsure": {"corpus": {"weight": 0.9, "evidence": [{"by": "entropy", "low": 0, "high": 4}]}},
}
"""Who teaches, by name: what the page offers."""

NEURAL_POLICIES: dict[str, dict[str, Any]] = {
    "half neural": {"neural": 0.5},
    "corpus and neural": {"corpus": 0.35, "neural": 0.35},
    "corpus where it knows, else neural": {"corpus": 0.7, "min_match_len": 3, "fallbacks": ["neural", "hard"]},
}
"""What it offers besides, where the server has a neural teacher."""


def continue_text(served: ServedIndex, fields: Fields) -> dict[str, Any]:
    """What follows a text: continuations, the backoff chain, an estimator's view, places, nearby forms.

    Fields: text; top, places, min_count, max_order and estimator may be given.
    """
    text = _text(fields)
    context = _ids(served, text)
    cut = max(0, context.size - CONTEXT_TOKENS)
    estimator = fields.get("estimator") or None
    if estimator is not None:
        served.teacher({"estimator": estimator, "max_order": CONTEXT_TOKENS})  # refuses what isn't a name
    answer = answer_query(
        served.index,
        _reader(served),
        context[cut:],
        text=None if served.tokenizer is None or cut else text,
        max_order=_whole(fields, "max_order", CONTEXT_TOKENS, 0, CONTEXT_TOKENS),
        min_count=_whole(fields, "min_count", 1, 1, 1 << 31),
        top=_whole(fields, "top", 20, 1, 200),
        snippets=_whole(fields, "places", 4, 0, served.options.limits.documents),
        estimator=estimator,
    )
    return {**vars(answer), "cut": cut, "whole": int(context.size)}


def trace_text(served: ServedIndex, fields: Fields) -> dict[str, Any]:
    """The spans of a text that stand in the corpus. Fields: text; min_length, max_count, places may be given."""
    text, begins = _text(fields), None
    if served.tokenizer is None:
        ids = _ids(served, text)
    else:
        tokens, places, _ = served.tokenizer.encode_with_offsets(text)
        ids, begins = tokens.astype(np.int64), places
    if ids.size == 0:
        raise RefusedRequest("the text is empty: give at least one character")
    if ids.size > TRACED_TOKENS:
        raise RefusedRequest(f"the text has {ids.size:,} tokens: the page traces {TRACED_TOKENS:,} at once", status=413)
    found = trace(
        served.index,
        ids,
        min_length=_whole(fields, "min_length", 6, 1, TRACED_TOKENS),
        max_count=_whole(fields, "max_count", None, 1, 1 << 40),
        snippets=_whole(fields, "places", 3, 0, 20),
        baseline=_kept(served, "novelty", lambda: corpus_novelty(served.index)),
        tokenizer=served.tokenizer,
    )
    spans = sorted(found.spans, key=lambda one: (-one.num_tokens, one.count))[:_SHOWN_SPANS]
    spans = sorted(spans, key=lambda one: one.begin)
    return {
        "tokens": found.tokens,
        "begins": begins,
        "match_len": found.match_len,
        "min_length": found.min_length,
        "max_count": found.max_count,
        "spans": spans,
        "num_spans": len(found.spans),
        "copied_share": found.copied_share,
        "longest": found.longest,
        "novelty": found.novelty,
        "baseline": found.baseline,
        "baseline_of": found.baseline_of,
    }


def teach_text(served: ServedIndex, fields: Fields) -> dict[str, Any]:
    """A text token by token: what the corpus says, on which evidence, and who would teach under a policy.

    Fields: text; estimator, max_order, leave_out and policy (a name, or a table as in TOML) may be given. The text is
    cut to what the neural teacher, if there is one, sees at once.
    """
    neural = served.neural
    policies = POLICIES if neural is None else POLICIES | NEURAL_POLICIES
    longest = None if neural is None else getattr(neural.model.config, "max_position_embeddings", None)
    ids = _ids(served, _text(fields))[: min(TAUGHT_TOKENS, (longest or TAUGHT_TOKENS) + 1)]
    if ids.size < 2:
        raise RefusedRequest("the text has fewer than two tokens: there is nothing to predict")
    named = fields.get("policy", "evidence")
    table = policies.get(named) if isinstance(named, str) else named
    if not isinstance(table, Mapping):
        raise RefusedRequest(f"there is no policy {named!r}: give one of {', '.join(policies)}, or a table")
    policy = make_policy(table)
    known = {"hard", "corpus", "distinct"} | (set() if neural is None else {"neural"})
    if policy.needs - known:
        lacking = "a neural teacher or a student" if neural is None else "a student"
        raise RefusedRequest(f"the policy asks for {lacking}, and the server has none")
    settings = {name: fields[name] for name in ("estimator", "max_order", "leave_out") if name in fields}
    teacher = served.teacher(settings)
    rows, following = ids[None, :-1], ids[None, 1:]
    targets = teacher(rows, following)
    evidence = teacher.evidence(("distinct",), rows, following)
    labels = torch.from_numpy(following.reshape(-1))
    logits = None if neural is None else neural.logits(rows)[0].float().cpu()
    made = blend(policy, 0, Components(labels, corpus=targets, neural=logits, evidence=evidence))
    beside: list[dict[str, Any]] = [{}] * len(labels) if logits is None else _neural_tokens(served, logits, labels)
    chance = targets.probability_of(labels).double().clamp_min(1e-30)
    likeliest = _likeliest(served, targets)
    unsure = targets.entropy().tolist()
    tokens: list[dict[str, Any]] = [{"text": served.token_text(int(ids[0]))}]
    for place in range(labels.shape[0]):
        tokens.append(
            {
                "text": served.token_text(int(labels[place])),
                "p": float(chance[place]),
                "nats": float(-chance[place].log()),
                "match_len": int(targets.match_len[place]),
                "count": int(targets.context_count[place]),
                "distinct": int(evidence["distinct"][place]),
                "entropy": unsure[place],
                "likeliest": likeliest[place],
                "corpus": float(made.weight_of("corpus")[place]),
                "hard": float(made.weight_of("hard")[place]),
                "reason": Reason(int(made.reasons[place])).label,
                **beside[place],
                **({} if neural is None else {"neural_share": float(made.weight_of("neural")[place])}),
            }
        )
    return {
        "tokens": tokens,
        "nats": float(-chance.log().mean()),
        "corpus_share": float(made.weight_of("corpus").mean()),
        "policy": policy.to_dict(),
        "policies": list(policies),
        "teacher": teacher.describe(),
        "neural": None if neural is None else {"name": served.neural_name, "nats": _mean(beside, "neural_nats")},
    }


def _neural_tokens(
    served: ServedIndex, logits: torch.Tensor, labels: torch.Tensor, top: int = 5
) -> list[dict[str, Any]]:
    """What the neural teacher says of each token: its probability, and the likeliest ones."""
    logs = logits.log_softmax(-1)
    chance = logs.gather(1, labels[:, None])[:, 0]
    best = logs.topk(min(top, logs.shape[1]))
    return [
        {
            "neural_p": float(chance[place].exp()),
            "neural_nats": float(-chance[place]),
            "neural_likeliest": [
                {"text": served.token_text(token), "p": math.exp(log)}
                for token, log in zip(best.indices[place].tolist(), best.values[place].tolist(), strict=True)
            ],
        }
        for place in range(labels.shape[0])
    ]


def _mean(tokens: list[dict[str, Any]], name: str) -> float:
    return sum(one[name] for one in tokens) / len(tokens)


def _likeliest(served: ServedIndex, targets: SoftTargets, top: int = 5) -> list[list[dict[str, Any]]]:
    """The most probable tokens of each position."""
    common = torch.topk(targets.base, min(top, targets.vocab_size)).indices
    said = []
    bounds = targets.offsets.tolist()
    for place in range(targets.num_positions):
        part = slice(bounds[place], bounds[place + 1])
        ids, probs = targets.token_ids[part].long(), targets.probs[part]
        others = common[~torch.isin(common, ids)]
        ids = torch.cat([ids, others])
        whole = targets.rest[place] * targets.base[ids]
        whole[: probs.shape[0]] += probs
        best = torch.topk(whole, min(top, whole.shape[0]))
        pairs = zip(ids[best.indices].tolist(), best.values.tolist(), strict=True)
        said.append([{"text": served.token_text(token), "p": chance} for token, chance in pairs])
    return said


def show_document(served: ServedIndex, fields: Fields) -> dict[str, Any]:
    """A part of a document around a place. Fields: document; offset and length, of a match in it, may be given."""
    index, reader = served.index, _reader(served)
    number = _whole(fields, "document", None, 0, index.num_documents - 1)
    if number is None:
        raise RefusedRequest("no document is named: give its number")
    found = index.document(number)
    offset = min(_whole(fields, "offset", 0, 0, 1 << 62) or 0, found.num_tokens)
    length = min(_whole(fields, "length", 0, 0, 1 << 62) or 0, found.num_tokens - offset, _BESIDE * 4)
    begin, end = max(0, offset - _BESIDE), min(found.num_tokens, offset + length + _BESIDE)
    tokens = index.tokens[found.start : found.start + found.num_tokens]
    return {
        "document": number,
        "name": found.name,
        "fields": found.fields,
        "num_tokens": found.num_tokens,
        "begin": begin,
        "end": end,
        "before": reader.text(tokens[begin:offset]),
        "match": reader.text(tokens[offset : offset + length]),
        "after": reader.text(tokens[offset + length : end]),
    }


def describe_corpus(served: ServedIndex, fields: Fields) -> dict[str, Any]:
    """What the corpus is: sizes, lengths of documents, passages that it repeats most, and what leaving out costs."""
    del fields
    index, reader = served.index, _reader(served)
    return {
        **served.describe(),
        "size_bytes": sum(index.size_bytes.values()),
        "num_bytes": text_bytes(index),
        "lengths": _kept(served, "lengths", lambda: document_lengths(index)),
        "passages": _kept(served, "passages", lambda: repeated_passages(index, reader)),
        "promise": _kept(served, "promise", lambda: _promise(served)),
    }


def near_duplicates(served: ServedIndex, fields: Fields) -> Any:
    """What documents share with one another; a pass over the whole index, kept."""
    del fields
    return _kept(served, "repeats", lambda: repeats_of(served.index, served.tokenizer))


def _promise(served: ServedIndex) -> dict[str, Any]:
    """Nats per token of passages of the index itself: as they stand, without themselves, without their documents."""
    index = served.index
    last = max(0, int(index.num_tokens) - _PROMISE_TOKENS - 1)
    begins = np.unique(np.linspace(0, last, _PROMISE_ROWS).astype(np.int64))
    size = min(_PROMISE_TOKENS, int(index.num_tokens) - 1)
    if size < 1:
        return {}
    rows = np.stack([index.tokens[begin : begin + size + 1].astype(np.int64) for begin in begins])
    said: dict[str, Any] = {"tokens": int(rows.size)}
    for name in (None, "self", "document"):
        if name == "document" and index.num_documents < 2:
            continue
        chance = index.next_probabilities(
            rows[:, :-1], rows[:, 1:], estimator="witten-bell", max_order=5, leave_out=name, positions=begins
        )
        said[name or "nothing"] = float(-np.log(np.maximum(chance, 1e-30)).mean())
    return said


_answers: WeakKeyDictionary[ServedIndex, dict[str, Any]] = WeakKeyDictionary()
_making = threading.Lock()


def _kept(served: ServedIndex, name: str, make: Callable[[], _Kept]) -> _Kept:
    """What an index is asked again and again and answers the same, made at the first time."""
    answers = _answers.setdefault(served, {})
    if name not in answers:
        with _making:
            if name not in answers:
                answers[name] = make()
    said: _Kept = answers[name]
    return said


def _reader(served: ServedIndex) -> Reader:
    return Reader(served.index, None, ids=True, tokenizer=served.tokenizer)


def _text(fields: Fields) -> str:
    text = fields.get("text", "")
    if not isinstance(text, str):
        raise RefusedRequest("`text` is not a text: give a string")
    return text


def _ids(served: ServedIndex, text: str) -> npt.NDArray[np.int64]:
    """Token ids of a text, which are written out where the index has no tokenizer."""
    if served.tokenizer is not None:
        return served.encode(text)
    return served.ids_of(parse_ids(text).tolist(), "the text")


def _whole(fields: Fields, name: str, default: Any, least: int, most: int) -> Any:
    """A whole number of a request, or of a query's text."""
    value = fields.get(name)
    if value is None or value == "":
        return default
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise RefusedRequest(f"`{name}` {value!r} is not a whole number") from None
    if not least <= number <= most:
        raise ConfigError(f"`{name}` {number} is outside of {least} to {most:,}")
    return number
