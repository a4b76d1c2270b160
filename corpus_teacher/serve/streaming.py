"""A completion as server-sent events: each part as soon as its token is drawn, and then `[DONE]`.

Naively: draw everything, then send it in pieces. Here a step of drawing is one question to the `Joiner`, so that many
streams take turns with other requests. A part holds the text that can't change any more: bytes of a character that
isn't whole yet, and what may be the beginning of a stop string, wait for the next token. The parts of a choice make the
text that the whole answer has. The first step is drawn before the answer begins: what is wrong with a request ends as
4xx, as elsewhere; what goes wrong later ends the stream with a part that has an `error`.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.responses import Response, StreamingResponse

from corpus_teacher.analysis.sample import draw_steps
from corpus_teacher.errors import CorpusIndexError
from corpus_teacher.serve.completion_logprobs import as_openai, log_probabilities, prompt_logprobs
from corpus_teacher.serve.completion_requests import Ints, Wanted
from corpus_teacher.serve.indexes import ServedIndex
from corpus_teacher.serve.joining import Joiner
from corpus_teacher.serve.limits import RefusedRequest
from corpus_teacher.targets.likeliest import Entry
from corpus_teacher.teacher import CorpusTeacher

_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Asking:
    """A completion that is being answered.

    Parameters
    ----------
    joiner : Joiner
    wanted : Wanted
    teacher, outside : CorpusTeacher
        Of the prompts, and of what is drawn, from which nothing is left out; both with all tokens explicit.
    """

    joiner: Joiner
    wanted: Wanted
    teacher: CorpusTeacher
    outside: CorpusTeacher

    async def of_prompt(self, ids: Ints) -> list[list[Entry]]:
        """Log-probabilities of a prompt's tokens from the second on; empty where nobody asked for them."""
        wanted = self.wanted
        echoed = wanted.echo and wanted.logprobs is not None
        if wanted.prompt_logprobs is None and not echoed:
            return []
        k = max(wanted.prompt_logprobs or 0, wanted.logprobs or 0 if wanted.echo else 0)
        return await log_probabilities(self.joiner, wanted, self.teacher, ids, 1, k)


class GrowingText:
    """The text of tokens that come one by one, given out as far as it is certain.

    Parameters
    ----------
    served : ServedIndex
    stop : sequence of str
        The text ends before the first of them.

    Attributes
    ----------
    tokens : list of int
    finished : bool
        Whether the document ended, or a stop string came.
    """

    def __init__(self, served: ServedIndex, stop: Sequence[str] = ()) -> None:
        self.served = served
        self.stop = list(stop)
        self.tokens: list[int] = []
        self.finished = False
        self._known = self._decoded = 0  # tokens before these are in the text, and needn't be looked at any more
        self._waiting = ""

    def add(self, token: int) -> str:
        """The text that one more token makes certain."""
        self.tokens.append(token)
        if token == self.served.index.end_of_document:
            text = self._rest(self.tokens[:-1])
            self.finished = True
            return text
        # a token's text may depend on the one before (a space, a half character): both are decoded
        before = self.served.decode(self.tokens[self._known : self._decoded])
        text = self.served.decode(self.tokens[self._known :])
        if len(text) > len(before) and not text.endswith(_BROKEN):
            self._known, self._decoded = self._decoded, len(self.tokens)
            self._waiting += text[len(before) :]
        return self._certain()

    def close(self) -> str:
        """What waited, where no more tokens come."""
        return "" if self.finished else self._rest(self.tokens)

    def _rest(self, tokens: list[int]) -> str:
        before = self.served.decode(tokens[self._known : self._decoded])
        self._waiting += self.served.decode(tokens[self._known :])[len(before) :]
        self._known = self._decoded = len(tokens)
        text = self._certain()
        text, self._waiting = text + self._waiting, ""
        return text

    def _certain(self) -> str:
        waiting = self._waiting
        stopped = min((place for stop in self.stop if (place := waiting.find(stop)) >= 0), default=-1)
        if stopped >= 0:
            self.finished, self._waiting = True, ""
            return waiting[:stopped]
        longest = max(map(len, self.stop), default=1) - 1
        held = next((n for n in range(min(longest, len(waiting)), 0, -1) if self._may_begin(waiting[-n:])), 0)
        text, self._waiting = waiting[: len(waiting) - held], waiting[len(waiting) - held :]
        return text

    def _may_begin(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self.stop)


class _Choice:
    """One continuation of a prompt, and what of it was sent."""

    def __init__(self, wanted: Wanted, number: int, ids: Ints) -> None:
        self.wanted, self.number, self.ids = wanted, number, ids
        self.text = GrowingText(wanted.served, wanted.stop)
        self.done = False
        self._offset = 0

    def part(self, text: str, entries: Sequence[list[Entry] | None], tokens: list[int], last: bool) -> dict[str, Any]:
        """A part as clients read it."""
        self.done = last
        wanted = self.wanted
        made: dict[str, Any] = {"index": self.number, "text": text, "logprobs": None, "finish_reason": None}
        if last:
            made["finish_reason"] = "stop" if self.text.finished else "length"
        if wanted.logprobs is not None and tokens:
            made["logprobs"] = as_openai(wanted, tokens, entries, self._offset)
            self._offset += sum(len(wanted.served.token_text(token)) for token in tokens)
        return made


async def stream(asking: Asking, most_s: float) -> Response:
    """The answer in parts.

    Parameters
    ----------
    asking : Asking
    most_s : float
        A stream ends, with an error, that many seconds after it began.

    Raises
    ------
    RefusedRequest, CorpusIndexError
        Before the first part.
    """
    parts = _parts(asking, time.monotonic() + most_s, most_s)
    first = await anext(parts)

    async def events() -> AsyncIterator[str]:
        yield _event(first)
        try:
            async for part in parts:
                yield _event(part)
        except (RefusedRequest, CorpusIndexError) as error:
            status = getattr(error, "status", 400)
            yield _event({"error": {"message": str(error), "type": "server_error", "param": None, "code": status}})
            return
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


def _event(part: dict[str, Any]) -> str:
    return f"data: {json.dumps(part, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _parts(asking: Asking, end: float, most_s: float) -> AsyncIterator[dict[str, Any]]:
    wanted, same = asking.wanted, head(asking.wanted)
    choices = [
        [_Choice(wanted, number * wanted.num + row, ids) for row in range(wanted.num)]
        for number, ids in enumerate(wanted.prompts)
    ]
    if wanted.max_tokens:
        drawing = [_drawing(asking, ids) for ids in wanted.prompts]
        drawn = await _next_step(asking, drawing, choices)
    for ids, row in zip(wanted.prompts, choices, strict=True):
        if wanted.echo or wanted.prompt_logprobs is not None or not wanted.max_tokens:
            of_prompt = await asking.of_prompt(ids)
            shown = ids.tolist() if wanted.echo else []
            for one in row:
                text = wanted.served.decode(ids) if wanted.echo else ""
                part = one.part(text, [None, *of_prompt][: len(shown)], shown, last=not wanted.max_tokens)
                part["prompt_logprobs"] = prompt_logprobs(wanted, ids, of_prompt)
                yield {**same, "choices": [part]}
    for number in range(wanted.max_tokens):
        if number:
            drawn = await _next_step(asking, drawing, choices)
        last = number + 1 == wanted.max_tokens
        for one, text, entries, token in await _said(asking, drawn, last):
            if text or one.text.finished or last or wanted.logprobs is not None or wanted.with_ids:
                part = one.part(text, entries, [token], last or one.text.finished)
                if wanted.with_ids:
                    part["token_ids"] = [token]
                yield {**same, "choices": [part]}
        if all(one.done for row in choices for one in row):
            break
        if time.monotonic() > end:
            raise RefusedRequest(f"not at its end after {most_s:g} s: ask for fewer tokens", status=503)
    if wanted.with_usage:
        made = sum(len(one.text.tokens) for row in choices for one in row)
        yield {**same, "choices": [], "usage": usage(wanted, made)}


def _drawing(asking: Asking, ids: Ints) -> Any:
    wanted = asking.wanted
    return draw_steps(
        wanted.served.index,
        prompt=ids,
        num=wanted.num,
        length=wanted.max_tokens,
        estimator=asking.outside.estimator,
        draw=wanted.draw,
        seed=wanted.seed,
    )


async def _next_step(asking: Asking, drawing: list[Any], choices: list[list[_Choice]]) -> list[tuple[_Choice, int]]:
    """One more token of each choice that goes on."""

    def step() -> list[tuple[_Choice, int]]:
        made = []
        for steps, row in zip(drawing, choices, strict=True):
            if not all(one.done for one in row):
                one = next(steps)
                made += [
                    (row[number], token) for number, token in zip(one.rows.tolist(), one.tokens.tolist(), strict=True)
                ]
        return [(one, token) for one, token in made if not one.done]

    drawn: list[tuple[_Choice, int]] = await asking.joiner.run(step, positions=sum(map(len, choices)))
    return drawn


async def _said(
    asking: Asking, drawn: list[tuple[_Choice, int]], last: bool
) -> list[tuple[_Choice, str, list[list[Entry] | None], int]]:
    """Of each choice the text of its new token, and the log-probabilities that were asked for."""
    wanted = asking.wanted

    async def entries(one: _Choice) -> list[list[Entry] | None]:
        whole = np.concatenate([one.ids, np.array(one.text.tokens, np.int64)])
        if wanted.logprobs is None or whole.size < 2:
            return [None]
        begin = int(whole.size) - 1
        return [*await log_probabilities(asking.joiner, wanted, asking.outside, whole, begin, wanted.logprobs)]

    texts = [one.text.add(token) for one, token in drawn]
    if last:
        texts = [text + one.text.close() for text, (one, _) in zip(texts, drawn, strict=True)]
    known = await asyncio.gather(*(entries(one) for one, _ in drawn))
    return [(one, text, said, token) for (one, token), text, said in zip(drawn, texts, known, strict=True)]


def head(wanted: Wanted) -> dict[str, Any]:
    """What an answer and each of its parts begin with."""
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": wanted.served.name,
    }


def usage(wanted: Wanted, made: int) -> dict[str, int]:
    """Tokens of the prompts and of what was made."""
    given = sum(int(ids.size) for ids in wanted.prompts)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
