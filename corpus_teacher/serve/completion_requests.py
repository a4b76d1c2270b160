"""A request of `/v1/completions`, read and checked."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.drawing import DrawOptions
from corpus_teacher.serve.indexes import ServedIndex
from corpus_teacher.serve.limits import Limits, RefusedRequest
from corpus_teacher.settings import nearest

Ints = npt.NDArray[np.int64]

_SETTINGS = ("estimator", "max_order", "leave_out")
_OURS = {"starts_document", "return_token_ids", "return_tokens_as_token_ids", "prompt_logprobs", "top_k"}
_THEIRS = {
    "model",
    "prompt",
    "max_tokens",
    "logprobs",
    "temperature",
    "seed",
    "echo",
    "n",
    "top_p",
    "stop",
    "stream",
    "stream_options",
}
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
_PASSED = {"user", "skip_special_tokens", "add_special_tokens", "spaces_between_special_tokens"}
_MOST_EXACT = 1 << 14
_MOST_CHOICES = 128


@dataclass(frozen=True)
class Wanted:
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
    stream: bool
    with_usage: bool


def read_wanted(given: Mapping[str, Any], served: ServedIndex, limits: Limits) -> Wanted:
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
    if not isinstance(stop, (str, list)):
        raise RefusedRequest(f"stop is {str(stop)[:40]}: give a text, or a list of texts")
    return Wanted(
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
        stop=[one for one in ([stop] if isinstance(stop, str) else map(str, stop)) if one],
        starts_document=bool(given.get("starts_document")),
        as_ids=bool(given.get("return_tokens_as_token_ids")),
        with_ids=bool(given.get("return_token_ids")),
        stream=bool(given.get("stream")),
        with_usage=_wants_usage(given.get("stream_options")),
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


def _wants_usage(options: Any) -> bool:
    """Whether a stream ends with what it used."""
    if options is None:
        return False
    if not isinstance(options, Mapping):
        raise RefusedRequest(f'stream_options is {options!r}: give an object, such as {{"include_usage": true}}')
    return bool(options.get("include_usage"))


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
    try:
        return float(value)
    except OverflowError:
        raise RefusedRequest(f"{name} is {str(value)[:20]}…: give a number that a float can hold") from None
