"""A corpus teacher that is somewhere else: `corpus-teacher serve` where the index is, this on machines that train.

It is called as a `CorpusTeacher` is, and gives the same targets to the bit: the batch travels as it is, and the server
asks the teacher that would be asked here. What can fail on the way is tried again, with growing pauses. The base
distribution, of V numbers, is fetched once.

Cost: the batch's bytes one way, some 540 bytes a position with 64 explicit tokens the other way. `prefetch`, a loader's
workers, or a collator's thread (`DistillationCollator(ahead=True)`) hide it behind the student's step.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher import __version__
from corpus_teacher.errors import ConfigError, InputError, RemoteError
from corpus_teacher.segments import ALIASES, COLUMNS, NOT_READ, Batch, as_array
from corpus_teacher.settings import check_known
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.wire import FORMS, PAIRS, POSITIONS, SAFETENSORS, pack_batch, unpack_targets

TOKEN = "CORPUS_TEACHER_TOKEN"
"""The variable of the environment that holds the server's token."""

_AGAIN = (429, 502, 503, 504)
_LONGEST_PAUSE_S = 30.0
_SERVER = "server"


class RemoteTeacher:
    """The corpus teacher of a server, as a teacher like any other.

    Parameters
    ----------
    url : str
        Of the server: ``http://host:8000``.
    index : str, optional
        Which of its indexes; its only one by default.
    estimator : str, optional
        The name of one; the server's own by default.
    max_order : int, None or "server"
        Longest context in tokens; None for no bound. By default the server's own.
    leave_out : {"auto", "self", "document", None, "server"}
        As a `CorpusTeacher` takes it.
    top_k : int, optional
        Explicit tokens a position at most; the server's own by default.
    top_p : float
    token : str, optional
        The server's bearer token; the environment's CORPUS_TEACHER_TOKEN by default.
    timeout_s : float
        For an answer.
    retries : int
        How often a request is sent again where the server can't be reached, or is busy.
    form : {"arrow", "safetensors"}
        How targets travel.

    Raises
    ------
    RemoteError
        A server that can't be reached, and an answer that isn't one.
    InputError, ConfigError
        What the server refuses, in its words; an index that it doesn't have.

    Notes
    -----
    Pickles as its settings: each worker of a loader has connections of its own, and so has each thread.
    Evidence (`distinct`) is there too; the mixed form isn't, whose rows lie in the index.

    Examples
    --------
    >>> teacher = RemoteTeacher("http://127.0.0.1:8000", leave_out="self")  # doctest: +SKIP
    >>> targets = teacher(input_ids)  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        estimator: str | None = None,
        max_order: int | str | None = _SERVER,
        leave_out: str | None = "auto",
        top_k: int | None = None,
        top_p: float = 1.0,
        token: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 6,
        form: str = "arrow",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url is {url!r}: give one such as http://host:8000")
        check_known(form, FORMS, "form")
        if retries < 0:
            raise ConfigError(f"retries is {retries}: give 0 or more")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.retries = retries
        self.form = form
        given = {"estimator": estimator, "max_order": max_order, "leave_out": leave_out, "top_k": top_k, "top_p": top_p}
        unsaid = {"estimator": None, "max_order": _SERVER, "leave_out": _SERVER, "top_k": None, "top_p": 1.0}
        self.settings = {name: value for name, value in given.items() if value != unsaid[name]}
        self._token = token if token is not None else os.environ.get(TOKEN)
        self._local = threading.local()
        self._base: tuple[str, Tensor] | None = None
        found = self._find(index)
        self.index_name: str = found["name"]
        self.fingerprint: str = found["fingerprint"]
        self._vocab_size: int = found["vocab_size"]
        self._described: dict[str, Any] | None = None

    @property
    def vocab_size(self) -> int:
        """V of the index, and of every target."""
        return self._vocab_size

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"RemoteTeacher({self.url!r}, index={self.index_name!r}, {said})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_local": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _local=threading.local())

    def describe(self) -> dict[str, Any]:
        """What the server's teacher says of itself, and where it is; one empty batch is asked for it at first."""
        if self._described is None:
            self._ask({"input_ids": np.zeros((0, 1), np.int64)}, ())
        return {**(self._described or {}), "url": self.url, "index": self.index_name}

    def __call__(
        self,
        input_ids: Batch,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
        positions: npt.ArrayLike | None = None,
        **columns: Any,
    ) -> SoftTargets:
        """Teach every position of a batch; parameters, targets and errors as of a `CorpusTeacher`.

        Raises
        ------
        RemoteError
            No answer after all retries, or an index that was replaced.
        """
        given = {"next_ids": next_ids, "starts_document": starts_document, "positions": positions, **columns}
        return self._ask(_columns_of(input_ids, given), ())[0]

    def distinct(self, input_ids: Batch, next_ids: npt.ArrayLike | Tensor | None = None, **options: Any) -> Tensor:
        """Distinct continuations of the longest known context of every position, as `CorpusTeacher.distinct`."""
        return self.evidence(("distinct",), input_ids, next_ids, **options)["distinct"]

    def evidence(
        self,
        names: Iterable[str],
        input_ids: Batch,
        next_ids: npt.ArrayLike | Tensor | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """What the corpus says of every position beside the targets, as `CorpusTeacher.evidence`."""
        wanted = tuple(sorted(set(names)))
        return self._ask(_columns_of(input_ids, {"next_ids": next_ids, **options}), wanted)[1] if wanted else {}

    def mixed(self, *arguments: Any, **options: Any) -> Any:
        """Refused: targets in mixed form refer to rows of the index.

        Raises
        ------
        ConfigError
        """
        raise ConfigError("a remote teacher gives flat targets only: mixed ones refer to rows of the index")

    def base_distribution(self) -> Tensor:
        """The distribution of the empty context, (V,) float32."""
        if self._base is None:
            self._ask({"input_ids": np.zeros((0, 1), np.int64)}, ())
        assert self._base is not None
        return self._base[1]

    def for_new_text(self) -> RemoteTeacher:
        """The same teacher for text that is not in its index."""
        other = RemoteTeacher.__new__(RemoteTeacher)
        other.__setstate__({**self.__dict__, "settings": {**self.settings, "leave_out": None}, "_described": None})
        return other

    def prefetch(self, batches: Iterable[Mapping[str, Any]], depth: int = 2) -> Iterator[tuple[Any, SoftTargets]]:
        """Batches with their targets, of which `depth` are asked for ahead.

        Parameters
        ----------
        batches : iterable of mappings
            With "input_ids", and what else a call takes.
        depth : int

        Yields
        ------
        (batch, SoftTargets)

        Raises
        ------
        ConfigError
            A depth below 1; errors of calls come where their batch would.
        """
        if depth < 1:
            raise ConfigError(f"depth is {depth}: ask for at least 1 batch ahead")
        waiting: deque[tuple[Any, Future[SoftTargets]]] = deque()
        with ThreadPoolExecutor(depth, thread_name_prefix="remote-teacher") as pool:
            try:
                for batch in batches:
                    waiting.append((batch, pool.submit(self, batch)))
                    if len(waiting) > depth:
                        first, told = waiting.popleft()
                        yield first, told.result()
                while waiting:
                    first, told = waiting.popleft()
                    yield first, told.result()
            finally:
                for _, told in waiting:
                    told.cancel()

    def _ask(self, columns: Mapping[str, Any], evidence: tuple[str, ...]) -> tuple[SoftTargets, dict[str, Tensor]]:
        """Targets and evidence of a batch."""
        arrays = {name: np.asarray(value) for name, value in columns.items() if name != "end_token"}
        settings: dict[str, Any] = {**self.settings, "index": self.index_name, "form": self.form}
        settings |= {"base": self._base is None, "evidence": list(evidence)}
        if columns.get("end_token") is not None:
            settings["end_token"] = int(columns["end_token"])
        wants_base = self._base is None
        content, kind = self._request("POST", "/v1/targets", pack_batch(arrays, settings), SAFETENSORS)
        try:
            got, about = unpack_targets(content, kind)
            self._check(about)
            base = self._base
            if "base" in got:
                base = self._base = about["base_id"], self._base_of(got.pop("base"))
            if base is None or base[0] != about["base_id"]:
                if wants_base:
                    raise ValueError("it comes without the base distribution that was asked for")
                self._base = None
                return self._ask(columns, evidence)
            told = {name: torch.from_numpy(np.array(got[f"evidence.{name}"])) for name in evidence}
            arrays = {name: got[name] for name in ("offsets", *PAIRS, *POSITIONS)}
            arrays["token_ids"] = arrays["token_ids"].astype(np.int64)
            made = SoftTargets.from_arrays(**{**arrays, "base": np.zeros(0)})
            return _with_base(made, base[1]).check_addresses(), told
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RemoteError(
                f"{self.url} gave an answer that isn't targets ({error}): see whether its version is this one, "
                f"{__version__}"
            ) from error

    def _base_of(self, given: Any) -> Tensor:
        base = torch.from_numpy(np.array(given, np.float32))
        if base.shape != (self.vocab_size,) or not bool(((base >= 0) & (base <= 1)).all()):
            raise ValueError(
                f"its base, of shape {tuple(base.shape)}, is no distribution over {self.vocab_size} tokens"
            )
        return base

    def _check(self, about: Mapping[str, Any]) -> None:
        described = about.get("teacher", {})
        if not isinstance(described, Mapping):
            raise ValueError("it describes no teacher")
        if described.get("index_fingerprint") != self.fingerprint:
            raise RemoteError(
                f"the index {self.index_name!r} at {self.url} was replaced since this teacher was made: make it again"
            )
        self._described = dict(described)

    def _find(self, name: str | None) -> dict[str, Any]:
        """What the server says of the index."""
        content, _ = self._request("GET", "/v1/models", None, None)
        try:
            known = {one["id"]: dict(one["index"]) for one in json.loads(content)["data"]}
            whole = all(
                isinstance(one.get("name"), str)
                and isinstance(one.get("fingerprint"), str)
                and type(one.get("vocab_size")) is int
                for one in known.values()
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RemoteError(f"{self.url} is no server of corpus-teacher: it lists no indexes") from error
        if not whole:
            raise RemoteError(f"{self.url} is no server of corpus-teacher: it doesn't describe its indexes")
        if name is None:
            if len(known) != 1:
                raise ConfigError(f"the server has the indexes {', '.join(known)}: name one (`index`)")
            name = next(iter(known))
        check_known(name, known, "index")
        return known[name]

    def _request(self, method: str, path: str, body: bytes | None, kind: str | None) -> tuple[bytes, str]:
        """The content of an answer and its type, after as many tries as it takes."""
        headers = {} if kind is None else {"content-type": kind}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        reason = ""
        for attempt in range(self.retries + 1):
            pause_s = min(0.1 * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
            try:
                connection = self._connection()
                connection.request(method, urlsplit(self.url).path + path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                reason = str(error) or type(error).__name__
            else:
                if answer.status == 200:
                    return content, answer.headers.get("content-type", "").partition(";")[0]
                reason = _reason(content, answer.status)
                if answer.status not in _AGAIN:
                    wrong = InputError if 400 <= answer.status < 500 and answer.status != 401 else RemoteError
                    raise wrong(f"{self.url} says: {reason}")
                after = answer.headers.get("retry-after", "")
                pause_s = max(pause_s, min(float(after), _LONGEST_PAUSE_S)) if after.isdecimal() else pause_s
            if attempt < self.retries:
                time.sleep(pause_s)
        raise RemoteError(f"no answer from {self.url} in {self.retries + 1} tries, the last: {reason}")

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's connection; of a forked process one of its own."""
        made: _Opened | None = getattr(self._local, "made", None)
        if made is None or made.process != os.getpid():
            parts = urlsplit(self.url)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = kind(str(parts.hostname), parts.port, timeout=self.timeout_s)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made = self._local.made = _Opened(connection)
        return made.connection

    def _drop(self) -> None:
        self._local.made = None

    def close(self) -> None:
        """Close this thread's connection; those of others end with their threads. The next call opens another."""
        self._drop()


class _Opened:
    """A connection that ends with whoever holds it: the thread, or the teacher."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self.process = os.getpid()
        weakref.finalize(self, connection.close)  # before the socket's own finalizer, in a cycle too


def _columns_of(input_ids: Batch, given: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a batch that a teacher reads, as arrays, under the names that they were given."""
    columns: dict[str, Any] = {}
    if isinstance(input_ids, Mapping):
        if "input_ids" not in input_ids:
            raise InputError(f"the batch holds {', '.join(sorted(input_ids)) or 'nothing'} and no input_ids: give them")
        known = {*COLUMNS, *ALIASES, "starts_document", "positions"}
        columns = {name: value for name, value in input_ids.items() if name in known}
        input_ids = input_ids["input_ids"]
    told = {name: value for name, value in given.items() if name not in NOT_READ}
    if told.get("starts_document") is False and "starts_document" in columns:
        told.pop("starts_document")
    columns |= {name: value for name, value in told.items() if value is not None or name not in columns}
    arrays = {name: as_array(value) for name, value in columns.items() if value is not None}
    return {"input_ids": as_array(input_ids), **arrays}


def _with_base(made: SoftTargets, base: Tensor) -> SoftTargets:
    return SoftTargets(**{**vars(made), "base": base})


def _reason(content: bytes, status: int) -> str:
    """The sentence of a refusal."""
    try:
        error = json.loads(content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
