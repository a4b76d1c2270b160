"""`/v1/completions` in vLLM's shape: what the corpus says of the tokens of a prompt, and how it would go on.

`prompt_logprobs[t]` is of token t after those before it, of the exact smoothed distribution: no shortlist, nothing cut.
As with vLLM's `processed_logprobs`, the temperature counts there too (0 doesn't). Generated tokens are drawn with
nothing left out: they are in no document.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import Response

from corpus_teacher.analysis.sample import sample_sequences
from corpus_teacher.data.drawing import DrawOptions
from corpus_teacher.serve.indexes import ServedIndex
from corpus_teacher.serve.limits import Limits, RefusedRequest
from corpus_teacher.serve.requests import Json, json_of, state_of
from corpus_teacher.settings import nearest
from corpus_teacher.targets.likeliest import Entry, RankedBase, likeliest
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.wire import rows_as_array

Ints = npt.NDArray[np.int64]

_SETTINGS = ("estimator", "max_order", "leave_out")
_OURS = {"starts_document", "return_token_ids", "return_tokens_as_token_ids", "prompt_logprobs", "top_k"}
_THEIRS = {"model", "prompt", "max_tokens", "logprobs", "temperature", "seed", "echo", "n", "top_p", "stop", "stream"}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "suffix": ("",),
}
"""Fields that are taken where they ask for nothing."""
_PASSED = {"user", "stream_options", "skip_special_tokens", "add_special_tokens", "spaces_between_special_tokens"}
_POSITIONS_AT_ONCE = 2048
_MOST_EXACT = 1 << 14
_MOST_CHOICES = 128

_bases: WeakKeyDictionary[CorpusTeacher, RankedBase] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Asked:
    """Log-probabilities of the tokens of one text from `begin` on."""

    teacher: CorpusTeacher
    ids: Ints
    begin: int
    k: int
    temperature: float
    starts_document: bool


@dataclass(frozen=True)
class _Wanted:
    """A request, read."""

    served: ServedIndex
    settings: dict[str, Any]
    prompts: list[Ints]
    max_tokens: int
    num: int
    draw: DrawOptions
    seed: int
    logprobs: int | None
    prompt_logprobs: int | None
    echo: bool
    stop: list[str]
    starts_document: bool
    as_ids: bool
    with_ids: bool


async def completions(request: Request) -> Response:
    """vLLM's completions, whole or, for clients that stream, as one part."""
    state = state_of(request)
    given = await json_of(request)
    wanted = _read(given, state.served.named(given.get("model")), state.options.limits)
    served, joiner = wanted.served, state.joiner
    exact = {**wanted.settings, "top_k": int(served.index.vocab_size)}
    teacher = await joiner.run(served.teacher, exact)
    outside = await joiner.run(served.teacher, {**exact, "leave_out": None})
    if wanted.max_tokens:
        cost = wanted.max_tokens * wanted.num * len(wanted.prompts)
        drawn = await joiner.run(_generate, wanted, outside, positions=cost)
    else:
        drawn = [[np.empty(0, np.int64)] * wanted.num for _ in wanted.prompts]

    async def logs(which: CorpusTeacher, ids: Ints, begin: int, k: int) -> list[list[Entry]]:
        if ids.size <= begin:
            return []
        asked = _Asked(which, ids, begin, k, wanted.draw.temperature, wanted.starts_document)
        said: list[list[Entry]] = await joiner.ask(("exact", id(which)), answer, asked, int(ids.size))
        return said

    choices: list[dict[str, Any]] = []
    for ids, sequences in zip(wanted.prompts, drawn, strict=True):
        of_prompt: list[list[Entry]] = []
        if wanted.prompt_logprobs is not None or (wanted.echo and wanted.logprobs is not None):
            k = max(wanted.prompt_logprobs or 0, wanted.logprobs or 0 if wanted.echo else 0)
            of_prompt = await logs(teacher, ids, 1, k)
        for tokens in sequences:
            of_drawn: list[list[Entry]] = []
            if wanted.logprobs is not None and tokens.size and (ids.size or tokens.size > 1):
                of_drawn = await logs(outside, np.concatenate([ids, tokens]), max(int(ids.size), 1), wanted.logprobs)
            choices.append(_choice(wanted, len(choices), ids, tokens, of_prompt, of_drawn))
    prompt_tokens = sum(int(ids.size) for ids in wanted.prompts)
    made = sum(int(tokens.size) for sequences in drawn for tokens in sequences)
    body = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": served.name,
        "choices": choices,
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made},
    }
    if given.get("stream"):
        text = json.dumps(body, ensure_ascii=False)
        return Response(f"data: {text}\n\ndata: [DONE]\n\n", media_type="text/event-stream")
    return Json(body)


def answer(asked: Sequence[_Asked]) -> list[list[list[Entry]]]:
    """Of each text the entries of its tokens; the texts of many clients in few questions to one teacher."""
    told: list[list[list[Entry]]] = []
    begin = 0
    while begin < len(asked):
        end, size = begin, 0
        while end < len(asked) and (end == begin or size + asked[end].ids.size <= _POSITIONS_AT_ONCE):
            size += asked[end].ids.size
            end += 1
        told += _answered(asked[begin:end])
        begin = end
    return told


def _answered(asked: Sequence[_Asked]) -> list[list[list[Entry]]]:
    teacher = asked[0].teacher
    rows = rows_as_array([one.ids for one in asked])
    said = teacher(rows, starts_document=np.array([one.starts_document for one in asked]))
    if teacher not in _bases:
        _bases[teacher] = RankedBase(said.base.numpy())
    told = []
    for number, one in enumerate(asked):
        places = number * rows.shape[1] + np.arange(one.begin - 1, one.ids.size - 1)
        told.append(likeliest(said, places, one.ids[one.begin :], one.k, _bases[teacher], one.temperature))
    return told


def _generate(wanted: _Wanted, teacher: CorpusTeacher) -> list[list[Ints]]:
    """Continuations of each prompt."""
    drawn = []
    for ids in wanted.prompts:
        made = sample_sequences(
            wanted.served.index,
            prompt=ids,
            num=wanted.num,
            length=wanted.max_tokens,
            estimator=teacher.estimator,
            draw=wanted.draw,
            seed=wanted.seed,
        )
        drawn.append([row[row >= 0] for row in made.tokens])
    return drawn


def _choice(
    wanted: _Wanted, number: int, ids: Ints, tokens: Ints, of_prompt: list[list[Entry]], of_drawn: list[list[Entry]]
) -> dict[str, Any]:
    served = wanted.served
    ended = tokens.size > 0 and int(tokens[-1]) == served.index.end_of_document
    text = served.decode(tokens[:-1] if ended else tokens)
    stopped = min((place for stop in wanted.stop if (place := text.find(stop)) >= 0), default=-1)
    if stopped >= 0:
        text = text[:stopped]
    choice: dict[str, Any] = {
        "index": number,
        "text": (served.decode(ids) if wanted.echo else "") + text,
        "logprobs": None,
        "finish_reason": "stop" if ended or stopped >= 0 else "length",
        "stop_reason": None,
        "prompt_logprobs": None,
    }
    if wanted.prompt_logprobs is not None:
        k = wanted.prompt_logprobs
        pairs = zip(of_prompt, ids[1:].tolist(), strict=True)
        shown = [_mapping(served, _only(entries, k, token)) for entries, token in pairs]
        choice["prompt_logprobs"] = [None, *shown] if ids.size else []
    if wanted.logprobs is not None:
        listed = [*ids.tolist(), *tokens.tolist()] if wanted.echo else tokens.tolist()
        entries = [None, *of_prompt] if wanted.echo and ids.size else []
        entries += of_drawn if ids.size else [None, *of_drawn]
        choice["logprobs"] = _as_openai(wanted, listed, entries[: len(listed)])
    if wanted.with_ids:
        choice |= {"token_ids": tokens.tolist(), "prompt_token_ids": ids.tolist()}
    return choice


def _only(entries: list[Entry], k: int, actual: int) -> list[Entry]:
    """The k likeliest and the actual token."""
    kept = entries[:k]
    return (
        kept
        if any(one.token == actual for one in kept)
        else [*kept, *(one for one in entries[k:] if one.token == actual)]
    )


def _mapping(served: ServedIndex, entries: list[Entry]) -> dict[str, Any]:
    return {
        str(one.token): {"logprob": one.logprob, "rank": one.rank, "decoded_token": served.token_text(one.token)}
        for one in entries
    }


def _as_openai(wanted: _Wanted, listed: list[int], entries: Sequence[list[Entry] | None]) -> dict[str, Any]:
    """Log-probabilities of tokens as OpenAI's completions give them."""

    def name(token: int) -> str:
        return f"token_id:{token}" if wanted.as_ids else wanted.served.token_text(token)

    offsets, place, own = [], 0, []
    tops: list[dict[str, float] | None] = []
    for token, known in zip(listed, entries, strict=True):
        offsets.append(place)
        place += len(wanted.served.token_text(token))
        mine = None if known is None else next(one for one in known if one.token == token)
        own.append(None if mine is None else mine.logprob)
        shown = None if known is None else _only(known, wanted.logprobs or 0, token)
        tops.append(None if shown is None else {name(one.token): one.logprob for one in shown})
    return {
        "text_offset": offsets,
        "token_logprobs": own,
        "tokens": [name(token) for token in listed],
        "top_logprobs": tops,
    }


def _read(given: Mapping[str, Any], served: ServedIndex, limits: Limits) -> _Wanted:
    """A request's fields, checked.

    Raises
    ------
    RefusedRequest
    """
    for name, value in given.items():
        if name in _NEUTRAL:
            if value is not None and value not in _NEUTRAL[name]:
                raise RefusedRequest(f"{name} is {value!r}, which the corpus knows nothing of: leave it out")
        elif name not in _OURS and name not in _THEIRS and name not in _SETTINGS and name not in _PASSED:
            raise RefusedRequest(f"there is no field {name!r}: {nearest(name, _OURS | _THEIRS | {*_SETTINGS})}")
    prompts = _prompts(given.get("prompt"), served)
    max_tokens = _whole(given, "max_tokens", 16, 0)
    num = _whole(given, "n", 1, 1)
    positions = sum(int(ids.size) for ids in prompts) + max_tokens * num * len(prompts)
    logprobs = None if given.get("logprobs") is None or given["logprobs"] is False else _whole(given, "logprobs", 0, 0)
    prompt_logprobs = None if given.get("prompt_logprobs") is None else _whole(given, "prompt_logprobs", 0, -1)
    if prompt_logprobs == -1:
        prompt_logprobs = int(served.index.vocab_size)
    most = limits.positions if logprobs is None and prompt_logprobs is None else min(limits.positions, _MOST_EXACT)
    if positions > most or num > _MOST_CHOICES:
        raise RefusedRequest(
            f"the request has {positions:,} positions and {num:,} choices of each prompt, and at most {most:,} and "
            f"{_MOST_CHOICES} are answered: send it in parts",
            status=413,
        )
    settings = {name: given[name] for name in _SETTINGS if name in given}
    seed = given.get("seed")
    stop = given.get("stop") or []
    return _Wanted(
        served=served,
        settings=settings,
        prompts=prompts,
        max_tokens=max_tokens,
        num=num,
        draw=DrawOptions(
            _number(given, "temperature", 1.0),
            None if given.get("top_k") in (None, -1, 0) else _whole(given, "top_k", 1, 1),
            _number(given, "top_p", 1.0),
        ),
        seed=random.getrandbits(63) if seed is None else _whole(given, "seed", 0, 0),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        echo=bool(given.get("echo")),
        stop=[stop] if isinstance(stop, str) else [str(one) for one in stop],
        starts_document=bool(given.get("starts_document")),
        as_ids=bool(given.get("return_tokens_as_token_ids")),
        with_ids=bool(given.get("return_token_ids")),
    )


def _prompts(given: Any, served: ServedIndex) -> list[Ints]:
    """Prompts of a text, of ids, or of a list of either."""
    if isinstance(given, str):
        return [served.encode(given)]
    if isinstance(given, list) and given:
        if all(isinstance(one, str) for one in given):
            return [served.encode(one) for one in given]
        if all(isinstance(one, list) for one in given):
            return [served.ids_of(one, f"prompt {number}") for number, one in enumerate(given)]
        return [served.ids_of(given, "the prompt")]
    raise RefusedRequest("there is no prompt: give a text, token ids, or a list of either")


def _whole(given: Mapping[str, Any], name: str, default: int, least: int) -> int:
    value = given.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 63:
        raise RefusedRequest(f"{name} is {value!r}: give a whole number from {least} on")
    return value


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    value = given.get(name)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise RefusedRequest(f"{name} is {value!r}: give a number")
    return float(value)
