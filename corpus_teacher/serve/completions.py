"""`/v1/completions` in vLLM's shape: what the corpus says of the tokens of a prompt, and how it would go on.

`prompt_logprobs[t]` is of token t after those before it, of the exact smoothed distribution: no shortlist, nothing cut.
As with vLLM's `processed_logprobs`, the temperature counts there too (0 doesn't). Generated tokens are drawn with
nothing left out: they are in no document. Whole answers are made here, streams in `streaming`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from corpus_teacher.analysis.sample import draw_steps
from corpus_teacher.serve.completion_logprobs import as_openai, log_probabilities, prompt_logprobs
from corpus_teacher.serve.completion_requests import Ints, Wanted, read_wanted
from corpus_teacher.serve.requests import Json, json_of, state_of
from corpus_teacher.serve.streaming import Asking, head, stream, usage
from corpus_teacher.targets.likeliest import Entry
from corpus_teacher.teacher import CorpusTeacher


async def completions(request: Request) -> Response:
    """vLLM's completions, whole, or token by token for clients that stream."""
    state = state_of(request)
    given = await json_of(request)
    wanted = read_wanted(given, state.served.named(given.get("model")), state.options.limits)
    joiner = state.joiner
    exact = {**wanted.settings, "top_k": int(wanted.served.index.vocab_size)}
    teacher = await joiner.run(wanted.served.teacher, exact)
    outside = await joiner.run(wanted.served.teacher, {**exact, "leave_out": None})
    asking = Asking(joiner, wanted, teacher, outside)
    if wanted.stream:
        return await stream(asking, state.options.limits.request_s)
    if wanted.max_tokens:
        cost = wanted.max_tokens * wanted.num * len(wanted.prompts)
        drawn = await joiner.run(_generate, wanted, outside, positions=cost)
    else:
        drawn = [[np.empty(0, np.int64)] * wanted.num for _ in wanted.prompts]
    choices: list[dict[str, Any]] = []
    for ids, sequences in zip(wanted.prompts, drawn, strict=True):
        of_prompt = await asking.of_prompt(ids)
        for tokens in sequences:
            of_drawn: list[list[Entry]] = []
            if wanted.logprobs is not None and tokens.size and (ids.size or tokens.size > 1):
                whole, begin = np.concatenate([ids, tokens]), max(int(ids.size), 1)
                of_drawn = await log_probabilities(joiner, wanted, outside, whole, begin, wanted.logprobs)
            choices.append(_choice(wanted, len(choices), ids, tokens, of_prompt, of_drawn))
    made = sum(int(tokens.size) for sequences in drawn for tokens in sequences)
    return Json({**head(wanted), "choices": choices, "usage": usage(wanted, made)})


def _generate(wanted: Wanted, teacher: CorpusTeacher) -> list[list[Ints]]:
    """Continuations of each prompt."""
    drawn = []
    for ids in wanted.prompts:
        rows: list[list[int]] = [[] for _ in range(wanted.num)]
        steps = draw_steps(
            wanted.served.index,
            prompt=ids,
            num=wanted.num,
            length=wanted.max_tokens,
            estimator=teacher.estimator,
            draw=wanted.draw,
            seed=wanted.seed,
        )
        for step in steps:
            for row, token in zip(step.rows.tolist(), step.tokens.tolist(), strict=True):
                rows[row].append(token)
        drawn.append([np.array(row, np.int64) for row in rows])
    return drawn


def _choice(
    wanted: Wanted, number: int, ids: Ints, tokens: Ints, of_prompt: list[list[Entry]], of_drawn: list[list[Entry]]
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
        "prompt_logprobs": prompt_logprobs(wanted, ids, of_prompt),
    }
    if wanted.logprobs is not None:
        listed = [*ids.tolist(), *tokens.tolist()] if wanted.echo else tokens.tolist()
        entries = [None, *of_prompt] if wanted.echo and ids.size else []
        entries += of_drawn if ids.size else [None, *of_drawn]
        choice["logprobs"] = as_openai(wanted, listed, entries[: len(listed)])
    if wanted.with_ids:
        choice |= {"token_ids": tokens.tolist(), "prompt_token_ids": ids.tolist()}
    return choice
