"""Shards in Ray's actors: who opens them, where, and who asks again when one of them dies.

Every actor opens one shard, fetched first where the index is behind a URL, and runs whatever
`corpus_index.sharded.asking` sends it. Questions have no effects, so one that was lost with its actor is asked again:
Ray starts the actor anew, on another machine if that one is gone, and where it has given up, the host makes another.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corpus_index import CorpusIndex
from corpus_index.integrity import Check
from corpus_index.manifest import MANIFEST
from corpus_index.shard_manifest import ShardEntry
from corpus_index.sharded.masked_shard import open_shard

from corpus_teacher.distributed.cluster import NAMESPACE, connect, load_ray
from corpus_teacher.errors import ConfigError, IndexFormatError, RemoteError
from corpus_teacher.storage import is_here, local_shard, url_of

_RESTARTS = -1  # of an actor: without end
_TRIES = 4  # of a question
_PAUSE_S = 0.2  # before the second try; it doubles


class ShardPlace(NamedTuple):
    """A shard as its actor opens it: its folder, its fingerprint, its tokens, and what the index's manifest says of it.

    path: of the folder, or a URL of it, from which each machine fetches its shards into its own cache.
    entry: None of an index of one piece. Masks of removed documents lie beside the folders of the shards.
    """

    path: str
    fingerprint: str
    num_tokens: int
    entry: ShardEntry | None = None

    def opened(self, check: Check) -> CorpusIndex:
        """The shard, on a machine that has its files or can fetch them.

        Raises
        ------
        FileNotFoundError, IndexFormatError
            As `open_shard`; it was replaced since it was named.
        InputError, OutputError
            It can't be fetched.
        """
        folder, entry = Path(self.path), self.entry
        if url_of(self.path) is not None:
            folder = local_shard(self.path, self.fingerprint, entry.mask if entry else None)
        if entry is not None:
            return open_shard(folder.parent, entry._replace(name=folder.name), check)
        shard = CorpusIndex.open(folder, check=check)
        if shard.fingerprint != self.fingerprint:
            shard.close()
            raise IndexFormatError(f"{self.path} was replaced since it was named: open it again")
        return shard

    def is_here(self) -> bool:
        """Whether this machine has the shard."""
        if url_of(self.path) is not None:
            return is_here(self.fingerprint)
        return Path(self.path, MANIFEST).is_file()


class ShardActor:
    """Holds one shard, opened at its first question."""

    def __init__(self, place: ShardPlace, check: Check) -> None:
        self.place, self.check = place, check
        self._lock = threading.Lock()
        self._shard: CorpusIndex | None = None

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """`function(shard, *arguments)`."""
        return function(self._opened(), *arguments)

    def _opened(self) -> CorpusIndex:
        with self._lock:  # questions come in several threads
            if self._shard is None:
                shard = self.place.opened(self.check)
                shard.prefer_large_pages()
                self._shard = shard
            return self._shard


class RayHost:
    """The actors of an index's shards.

    Parameters
    ----------
    places : sequence of ShardPlace
    prefix : str
        Of the actors' names.
    check : {"first", "always", "never"}
        As `CorpusIndex.open` takes it.
    num_cpus : float
        Processors that Ray reserves for each actor.
    concurrency : int
        Questions that an actor answers at once.
    stays : bool
        Whether the actors outlive this process.
    address : str, optional
        Of the cluster; see `cluster.connect`.
    """

    def __init__(
        self,
        places: Sequence[ShardPlace],
        prefix: str,
        *,
        check: Check = "first",
        num_cpus: float = 0.0,
        concurrency: int = 4,
        stays: bool = False,
        address: str | None = None,
    ) -> None:
        self._ray = connect(address)
        self.places, self.prefix = list(places), prefix
        self._options: dict[str, Any] = {
            "check": check,
            "num_cpus": num_cpus,
            "concurrency": concurrency,
            "stays": stays,
        }
        self._lock = threading.Lock()
        self._process = os.getpid()
        nodes = _nodes_of_shards(self._ray, self.places)
        self._actors = [self._actor(number, nodes[number]) for number in range(len(self.places))]

    def __reduce__(self) -> tuple[Any, ...]:
        return _found_host, (self.places, self.prefix, self._options, self._ray.get_runtime_context().gcs_address)

    def __len__(self) -> int:
        return len(self.places)

    def ask(
        self, function: Callable[..., Any], numbers: Sequence[int], arguments: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """Ask the actors of some shards at once; see `corpus_index.sharded.asking.ShardHost`.

        Raises
        ------
        RemoteError
            An actor died again and again.
        ConfigError
            In a forked process.
        """
        self._check_process()
        ray = self._ray
        asked = zip(numbers, arguments, strict=True)
        waiting = {self._send(function, number, given): i for i, (number, given) in enumerate(asked)}
        answers: list[Any] = [None] * len(waiting)
        failures: Counter[int] = Counter()
        while waiting:
            [done], _ = ray.wait(list(waiting), num_returns=1)
            i = waiting.pop(done)
            try:
                answers[i] = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise getattr(error, "cause", None) or error from None
            except _lost(ray) as error:
                failures[i] += 1
                if failures[i] == _TRIES:
                    path = self.places[numbers[i]].path
                    raise RemoteError(
                        f"the actor of {path} died {_TRIES} times while it was asked ({_first_line(error)}): look at "
                        "Ray's logs for what killed it, memory above all"
                    ) from error
                time.sleep(_PAUSE_S * 2 ** (failures[i] - 1))
                self._replace(numbers[i], error)
                waiting[self._send(function, numbers[i], arguments[i])] = i
        return answers

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def _send(self, function: Callable[..., Any], number: int, arguments: tuple[Any, ...]) -> Any:
        if not self._actors:
            raise RemoteError(f"the actor of {self.places[number].path} was ended: open the index again")
        return self._actors[number].ask.remote(function, arguments)

    def _actor(self, number: int, nodes: list[str] | None) -> Any:
        """The actor of a shard, made where there is none of its name; nodes: those that have it, the best first."""
        said, ray = self._options, self._ray
        strategy: Any = "DEFAULT"
        if nodes is not None:
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(nodes[0], soft=False)
        return (
            ray.remote(ShardActor)
            .options(
                name=f"{self.prefix}:{number}",
                namespace=NAMESPACE,
                get_if_exists=True,
                lifetime="detached" if said["stays"] else None,
                num_cpus=said["num_cpus"],
                max_concurrency=said["concurrency"],
                max_restarts=_RESTARTS,
                max_task_retries=1,
                scheduling_strategy=strategy,
            )
            .remote(self.places[number], said["check"])
        )

    def _replace(self, number: int, error: Exception) -> None:
        """Make another actor where Ray has given this one up."""
        ray = self._ray
        if isinstance(error, ray.exceptions.ActorUnavailableError):  # Ray is starting it again
            return
        with self._lock:
            nodes = _nodes_of_shards(ray, [self.places[number]])[0]
            self._actors[number] = self._actor(number, nodes)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ConfigError(
                "the index in Ray's actors was opened before this process was forked, which Ray doesn't survive: let "
                "loaders start their workers with multiprocessing_context='spawn', or have none (num_workers=0)"
            )


def _found_host(places: Sequence[ShardPlace], prefix: str, options: dict[str, Any], address: str) -> RayHost:
    """The host of actors that are there, in another process."""
    ray = load_ray()
    return RayHost(places, prefix, address=None if ray.is_initialized() else address, **options)


def _nodes_of_shards(ray: Any, places: Sequence[ShardPlace]) -> list[list[str] | None]:
    """For each shard, the nodes that may hold it, the best first; None on a single machine.

    Those that have its files, the one with the fewest tokens first; of a shard behind a URL all, see `_by_preference`.

    Raises
    ------
    IndexFormatError
        No node has one of them.
    """
    alive = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
    if len(alive) < 2:
        return [None] * len(places)
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    probe = ray.remote(_which_are_here)
    asked = {
        probe.options(num_cpus=0, scheduling_strategy=affinity(node, soft=False)).remote(list(places)): node
        for node in alive
    }
    here: dict[str, set[int]] = {}
    for answer, node in asked.items():
        try:
            here[node] = set(ray.get(answer))
        except ray.exceptions.RayError:  # it went away meanwhile
            here[node] = set()
    load: Counter[str] = Counter()
    share = sum(place.num_tokens for place in places) / len(alive)
    chosen: list[list[str] | None] = []
    for number, place in enumerate(places):
        having = sorted((node for node in alive if number in here[node]), key=lambda node: load[node])
        if url_of(place.path) is not None:
            having = _by_preference(alive, set(having), load, share)
        if not having:
            raise IndexFormatError(
                f"no machine of the cluster has the shard {place.path}: copy it to one, under the same path, or put "
                "the index on storage that all of them share"
            )
        load[having[0]] += place.num_tokens
        chosen.append(having)
    return chosen


def _by_preference(alive: Sequence[str], having: set[str], load: Mapping[str, int], share: float) -> list[str]:
    """Nodes for a shard that any can fetch: one that has it while it holds less than its share, else the emptiest."""
    return sorted(alive, key=lambda node: (not (node in having and load[node] < share), load[node]))


def _which_are_here(places: Sequence[ShardPlace]) -> list[int]:
    """Numbers of the shards whose files this machine has."""
    return [number for number, place in enumerate(places) if place.is_here()]


def _lost(ray: Any) -> tuple[type[Exception], ...]:
    """What is raised where an answer, or its actor, is gone."""
    errors = ray.exceptions
    return errors.RayActorError, errors.ActorUnschedulableError, errors.ObjectLostError


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
