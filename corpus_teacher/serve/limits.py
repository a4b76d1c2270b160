"""What a server is told, what it bears, and how it refuses: one sentence, a status, and when to come back."""

from __future__ import annotations

from dataclasses import dataclass, field

from corpus_teacher.errors import ConfigError, CorpusTeacherError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine as it calls itself: nobody else reaches a server that is bound to one of them."""


class RefusedRequest(CorpusTeacherError, ValueError):
    """A request that isn't answered.

    Attributes
    ----------
    status : int
        HTTP's: 400 to 499 where another request would be answered, 503 where the same would be, later.
    retry_after_s : int or None
        When to come back.
    """

    def __init__(self, sentence: str, status: int = 400, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how much may wait.

    Parameters
    ----------
    body_bytes : int
        Of a request's body.
    positions : int
        Tokens of a request: of its prompts, and of what is to be generated.
    queries : int
        Of a request in infini-gram's shape.
    request_s : float
        Seconds from a request's arrival to its answer.
    waiting_requests, waiting_positions : int
        What may wait beside what is being answered; whoever comes then is sent away with 429.
    batch_positions : int
        Requests that wait for the same answers are joined up to so many positions.
    documents, shown_tokens : int
        Of a search, and of each document that is shown.

    Raises
    ------
    ConfigError
        One that is below 1.
    """

    body_bytes: int = 64 << 20
    positions: int = 1 << 18
    queries: int = 4096
    request_s: float = 60.0
    waiting_requests: int = 256
    waiting_positions: int = 1 << 20
    batch_positions: int = 1 << 14
    documents: int = 100
    shown_tokens: int = 10_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 1:
                raise ConfigError(f"{name} is {value}: give at least 1")


@dataclass(frozen=True)
class ServeOptions:
    """How a server answers where a request doesn't say it.

    Parameters
    ----------
    host : str
        The address to listen on; only this machine, unless told otherwise.
    port : int
        0: a free one.
    estimator : str
        A name, or the file of a fitted estimator.
    max_order : int, optional
    leave_out : {"auto", "self", "document", None}
        As `CorpusTeacher` takes it. None: texts of requests are taken for new ones.
    top_k : int
        Explicit tokens a position of targets.
    token : str, optional
        Who doesn't send it ("Authorization: Bearer …") is refused.
    threads : int, optional
        That ask the indexes; the processors by default.
    access_log : bool
        Log a line for each request.
    neural : str, optional
        A model (a folder, a name, a GGUF file, "smollm2") that teaches beside the corpus on the page.
    limits : Limits

    Raises
    ------
    ConfigError
        A port or a number out of range, or an empty token.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    estimator: str = "witten-bell"
    max_order: int | None = 5
    leave_out: str | None = None
    top_k: int = 64
    token: str | None = None
    threads: int | None = None
    access_log: bool = True
    neural: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"port is {self.port}: give 1 to 65535, or 0 for a free one")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}: give at least 1")
        if self.token is not None and not self.token.strip():
            raise ConfigError("the token is empty: give one of some length, or none")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK
