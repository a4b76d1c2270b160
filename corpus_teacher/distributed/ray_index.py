"""An index whose shards are held by Ray's actors, on one machine or on many; it answers like any other."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from corpus_index import ShardedIndex
from corpus_index.integrity import Check
from corpus_index.shard_manifest import (
    SHARDS_FORMAT,
    ShardEntry,
    entries_of,
    format_of,
    load_shards_manifest,
    shard_name,
    shards_manifest,
)
from corpus_index.sharded.shard_elsewhere import ShardElsewhere, facts_of
from corpus_index.store import read_manifest

from corpus_teacher.distributed.ray_host import RayHost, ShardPlace
from corpus_teacher.errors import ConfigError
from corpus_teacher.storage import index_folder, local_index, manifest_of, url_of


class RayIndex(ShardedIndex):
    """A sharded index whose shards are open in Ray's actors: `CorpusTeacher(RayIndex(path))` works in any loop.

    Each actor runs the code that would run here on the files that would be open here, and what they count is put
    together here: answers are those of `open_index(path)`, bit for bit. Shards are asked at once, and answers are taken
    as they come. An actor or a machine that dies costs a retry.

    Parameters
    ----------
    path : path or str
        The folder of an index. Its manifest is read here; a shard is opened, under the same path, on a machine that
        has it: all machines where the folder is shared, or some shards here and some there. Or a URL of it: each
        actor fetches the shard that it holds into its machine's cache, where it isn't there yet, and compares it with
        its checksums; this process fetches the manifest alone.
    address : str, optional
        "local", "auto", or HOST:PORT of a cluster's head. Default: the cluster that this process is connected to, else
        RAY_ADDRESS, else "local", which starts one of this machine alone.
    name : str, optional
        Actors with a name stay when this process ends, and every process that gives the same name asks the same ones;
        `end_actors` ends them. Default: they are this object's own, and end with it.
    check : {"first", "always", "never"}
        When files are compared with their checksums; see `CorpusIndex.open`.
    num_cpus : float
        Processors that Ray reserves for each actor; 0: it may be placed anywhere.
    concurrency : int
        Questions that an actor answers at once, in threads.

    Raises
    ------
    ConfigError
        Ray isn't installed.
    RemoteError
        No cluster answers.
    IndexFormatError, InputError, OutputError
        As `open_index`, an actor's fetch included; or no machine of the cluster has a shard.

    Notes
    -----
    A batch of targets is two rounds of questions, three with documents left out. What travels are the shards' chains
    and continuations; putting them together takes the time that it takes with shards that
    are open here. It pickles as the names of its actors, and must not be used in a forked process.

    A single index is one shard: its answers are those of a sharded index with one shard, which differ from the single
    index's in the last digits where sums run in another order.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        address: str | None = None,
        name: str | None = None,
        check: Check = "first",
        num_cpus: float = 0.0,
        concurrency: int = 4,
    ) -> None:
        if num_cpus < 0 or concurrency < 1:
            raise ConfigError(
                f"num_cpus {num_cpus} and concurrency {concurrency}: an actor has at least 0 processors, and answers "
                "at least 1 question at once"
            )
        manifest, places = _places_of(path)
        self.path = _path_of(path, manifest)
        self._connect(
            manifest,
            RayHost(
                places,
                f"{name or uuid.uuid4().hex}:{manifest['fingerprint'][:16]}",
                check=check,
                num_cpus=num_cpus,
                concurrency=concurrency,
                stays=name is not None,
                address=address,
            ),
            owned=name is None,
        )

    def _connect(self, manifest: dict[str, Any], host: RayHost, *, owned: bool) -> None:
        self._host, self._owned = host, owned
        facts = host.ask(facts_of, range(len(host)), [()] * len(host))
        self.take_over(manifest, [ShardElsewhere(host, number, one) for number, one in enumerate(facts)])

    def __reduce__(self) -> tuple[Any, ...]:
        return _reconnected, (str(self.path), self._manifest, self._host)

    def __repr__(self) -> str:
        return (
            f"RayIndex({str(self.path)!r}: {self.num_tokens:,} tokens, {self.num_documents:,} documents, "
            f"vocabulary {self.vocab_size:,}, {len(self.shards)} shards)"
        )

    def close(self) -> None:
        """End the actors, unless they have a name."""
        if self._owned:
            self._host.close()

    def end_actors(self) -> None:
        """End the actors, whoever else asks them."""
        self._host.close()


def _reconnected(path: str, manifest: dict[str, Any], host: RayHost) -> RayIndex:
    """The index in another process, which asks the same actors."""
    index = RayIndex.__new__(RayIndex)
    index.path = Path(path)
    index._connect(manifest, host, owned=False)
    return index


def _path_of(path: str | os.PathLike[str], manifest: dict[str, Any]) -> Path:
    """What the index is called: its folder; of one behind a URL that which it has in the cache, where fits are kept."""
    if url_of(path) is None:
        return local_index(path).absolute()
    return index_folder() / str(manifest["fingerprint"])[:32]


def _places_of(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[ShardPlace]]:
    """The manifest, and what each actor opens."""
    url = url_of(path)
    if url is not None:
        where, said = url.rstrip("/"), manifest_of(url).manifest
    else:
        folder = local_index(path).absolute()
        where = str(folder)
        said = load_shards_manifest(folder) if format_of(folder) == SHARDS_FORMAT else read_manifest(folder)
    if said["format"] == SHARDS_FORMAT:
        return said, [
            ShardPlace(f"{where}/{entry.name}", entry.fingerprint, entry.num_tokens, entry)
            for entry in entries_of(said)
        ]
    fingerprint, metadata, num_tokens = said["fingerprint"], said["metadata"], said["num_tokens"]
    entry = ShardEntry(shard_name(fingerprint), fingerprint, 0, 0, said["num_documents"], num_tokens)
    manifest = shards_manifest([entry], said["vocab_size"], metadata, metadata.get("history", []))
    manifest["fingerprint"] = fingerprint  # what was fitted on the index stays known
    return manifest, [ShardPlace(where, fingerprint, num_tokens)]
