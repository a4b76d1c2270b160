"""What all routes share: the state, bodies within their limits, JSON, and errors in the shape that clients read."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from corpus_teacher.serve.counters import Counters
from corpus_teacher.serve.indexes import Served
from corpus_teacher.serve.joining import Joiner, within
from corpus_teacher.serve.limits import RefusedRequest, ServeOptions


@dataclass(frozen=True)
class State:
    """What the routes of an application share."""

    served: Served
    options: ServeOptions
    counters: Counters
    joiner: Joiner


def state_of(request: Request) -> State:
    """The state of the application that a request came to."""
    state: State = request.app.state.shared
    return state


class Json(Response):
    """JSON in UTF-8; infinities and NaN, which it lacks, are null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of a value."""
        try:
            text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        except ValueError:
            text = json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":"), default=_plain)
        return text.encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """What JSON doesn't know: numpy's numbers and arrays, data classes, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return str(value)


def _finite(value: Any) -> Any:
    if hasattr(value, "tolist") or hasattr(value, "__dataclass_fields__"):
        value = _plain(value)
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# How much of a body that is too large is read, and dropped, before it is refused: a client that still sends when the
# connection closes is told of the closing, not of the reason.
DISCARDED_BYTES = 64 << 20


async def body_of(request: Request) -> bytes:
    """The body of a request.

    Raises
    ------
    RefusedRequest
        413 above the limit, 408 where it doesn't arrive in time.
    """
    limits = state_of(request).options.limits
    try:
        return await within(_read_body(request, limits.body_bytes), limits.request_s)
    except asyncio.TimeoutError:
        raise RefusedRequest(f"the request didn't arrive within {limits.request_s:g} s", status=408) from None


async def _read_body(request: Request, most: int) -> bytes:
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > most + DISCARDED_BYTES:
                break
            else:
                parts.clear()
    except ClientDisconnect:
        raise RefusedRequest("the client went away", status=499) from None
    if size > most:
        raise RefusedRequest(f"the request has more than {most:,} bytes: send it in parts", status=413)
    return b"".join(parts)


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body of a request.

    Raises
    ------
    RefusedRequest
    """
    body = await body_of(request)
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedRequest(f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise RefusedRequest(f"the body is a JSON {type(given).__name__}: give an object")
    return given


def error_response(request: Request, sentence: str, status: int, retry_after_s: int | None = None) -> Response:
    """An error in the shape that the clients of a route read: OpenAI's under /v1, else a text."""
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if request.url.path.startswith("/v1/"):
        kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
        error: Any = {"message": sentence, "type": kind, "param": None, "code": status}
    else:
        error = sentence
    return Json({"error": error}, status_code=status, headers=headers)
