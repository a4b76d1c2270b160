"""Ray, imported when it is needed, and the cluster that this process is connected to."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Any

from corpus_teacher.errors import ConfigError, RemoteError

LOCAL = "local"
"""The address of a cluster of this machine alone, which ends with the process."""

NAMESPACE = "corpus_teacher"
"""Of our actors' names."""

_WAIT_S = 10.0  # for a connection


def load_ray() -> Any:
    """The module.

    Raises
    ------
    ConfigError
        It isn't installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError(
            "indexes on several machines need Ray: pip install corpus-teacher[ray], on every machine"
        ) from error
    return ray


def connect(address: str | None = None) -> Any:
    """The module, connected.

    Parameters
    ----------
    address : str, optional
        "local": a cluster of this machine, started here. "auto": the one that runs on this machine. HOST:PORT: that of
        a head node. Default: what this process is connected to, else RAY_ADDRESS, else "local".

    Raises
    ------
    ConfigError
        Ray isn't installed, or this process is connected to another cluster.
    RemoteError
        No cluster answers.
    """
    ray = load_ray()
    if ray.is_initialized():
        mine = ray.get_runtime_context().gcs_address
        if address not in (None, LOCAL, "auto", mine):
            raise ConfigError(
                f"this process is connected to the Ray cluster at {mine}, not {address}: leave the address out"
            )
        return ray
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    if address not in (LOCAL, "auto"):
        _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise _unreachable(address, reason) from error
    return ray


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigError(f"the address {address!r} of a Ray cluster is not HOST:PORT: give that, 'auto' or 'local'")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(socket.create_connection((host.strip("[]"), int(port)), timeout=_WAIT_S))
        except (OSError, OverflowError) as error:
            raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from error


def _unreachable(address: str, reason: str) -> RemoteError:
    return RemoteError(f"no Ray cluster answers at {address} ({reason}): start one there, or give 'local'")
