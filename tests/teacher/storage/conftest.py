"""Storages of tests: fsspec's memory, and a server on loopback that speaks S3 (moto), where it is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus_teacher.storage import urls


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No waits between tries, and a cache of the test's own."""
    monkeypatch.setattr(urls, "_WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setenv("CORPUS_TEACHER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's storage in memory, empty."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    with contextlib.suppress(FileNotFoundError):
        system.rm("/", recursive=True)
    yield system
    with contextlib.suppress(FileNotFoundError):
        system.rm("/", recursive=True)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of a server that speaks S3."""
    server = pytest.importorskip("moto.server", reason="moto[server] isn't installed", exc_type=ImportError)
    pytest.importorskip("s3fs", reason="s3fs isn't installed", exc_type=ImportError)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """s3fs on that server, with a bucket `corpus`; what isn't said here is found as a user's would be."""
    import s3fs

    for name, value in (
        ("AWS_ENDPOINT_URL", s3_server),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", str(tmp_path / "none")),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none")),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    if not system.exists("corpus"):
        system.mkdir("corpus")
    yield system
    with contextlib.suppress(FileNotFoundError):
        system.rm("corpus", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
