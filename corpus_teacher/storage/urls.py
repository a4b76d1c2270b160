"""Files behind URLs, read as files of this machine are: `UrlPath` has what readers use of `pathlib.Path`.

fsspec speaks to the storage; each request is one range of bytes, tried again when the connection breaks, so a stream
goes on where it was and nothing is downloaded whole. Naively: `fsspec.open(url).read()`.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, TypeVar

from corpus_teacher.errors import InputError, OutputError

_T = TypeVar("_T")

_URL = re.compile(r"([a-z][a-z0-9+.\-]+):/{1,2}(?!/)(.*)", re.DOTALL)
_WAITS_S = (0.2, 0.5, 1.0, 2.0)
"""Between the tries of a request."""
_FIRST_BYTES = 1 << 18
_MOST_BYTES = 1 << 23
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError, TypeError)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "LocalTokenNotFoundError")
_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied")


class Size(NamedTuple):
    """What `stat` says of a file behind a URL."""

    st_size: int


def url_of(place: str | os.PathLike[str]) -> str | None:
    """The URL that a name is, also after `Path` made one slash of two; None for a path of this machine.

    >>> url_of("s3://bucket/a"), url_of(Path("s3://bucket/a")), url_of("C:/a"), url_of("a/b"), url_of("file:///a/b")
    ('s3://bucket/a', 's3://bucket/a', None, None, None)
    """
    text = os.fspath(place)
    found = _URL.fullmatch(text)
    if found is None or text.startswith("file:"):
        return None
    return f"{found[1]}://{found[2]}"


def place_of(name: str | os.PathLike[str]) -> Place:
    """The file or folder of a name: a `UrlPath` for a URL, else a `Path`; `file://` is a path too."""
    url = url_of(name)
    if url is not None:
        return UrlPath(url)
    text = os.fspath(name)
    return Path("/" + text.removeprefix("file:").lstrip("/")) if text.startswith("file:/") else Path(text)


def written_path(path: str | os.PathLike[str]) -> Path:
    """The place of something that is written, as a path of this machine; `file://` is one.

    Raises
    ------
    OutputError
        It is a URL.
    """
    url = url_of(path)
    if url is not None:
        raise OutputError(f"{url} is a URL, and what is made is written to this machine: write it here, then copy it")
    place = place_of(path)
    assert isinstance(place, Path)
    return place


class UrlPath:
    """A file or folder behind a URL.

    Parameters
    ----------
    url : str
        Of any storage that fsspec knows. Keys and addresses are found as the storage's own client finds them: in the
        environment and its configuration files.

    Raises
    ------
    InputError
        From every method that asks the storage: the package for it isn't installed, there are no credentials or they
        don't suffice, or it can't be reached after several tries.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        scheme, _, rest = self.url.partition("://")
        self.scheme = scheme
        self._pure = PurePosixPath(rest)

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"UrlPath({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlPath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, name: str) -> UrlPath:
        return UrlPath(f"{self.url}/{name}")

    def joinpath(self, *parts: str) -> UrlPath:
        """A file below this folder."""
        return UrlPath("/".join((self.url, *parts)))

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def suffix(self) -> str:
        """The last suffix, with its dot."""
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        """All suffixes."""
        return self._pure.suffixes

    @property
    def parent(self) -> UrlPath:
        """The folder."""
        return UrlPath(self.url.rpartition("/")[0])

    def with_name(self, name: str) -> UrlPath:
        """Another file in the same folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> UrlPath:
        """The file of another suffix."""
        return self.with_name(self._pure.with_suffix(suffix).name)

    def stat(self) -> Size:
        """The size.

        Raises
        ------
        InputError
            If there is no such file, or its size isn't known.
        """
        size = self._ask(lambda system, path: system.info(path)).get("size")
        if type(size) is not int:
            raise InputError(f"{self} has no size that its storage tells: download it, and name the file")
        return Size(size)

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return bool(self._ask(lambda system, path: system.isfile(path)))

    def is_dir(self) -> bool:
        """Whether there is such a folder."""
        return bool(self._ask(lambda system, path: system.isdir(path)))

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._ask(lambda system, path: system.exists(path)))

    def glob(self, pattern: str = "") -> list[UrlPath]:
        """The files and folders that match this URL, or a pattern below it, sorted; no hidden ones, as `glob.glob`."""
        found = self._ask(lambda system, path: system.glob(f"{path}/{pattern}" if pattern else path))
        return sorted((one for one in map(self._at, found) if not one.name.startswith(".")), key=str)

    def walk(self) -> Iterator[tuple[UrlPath, list[str], list[str]]]:
        """Folders below, top first, each with the names of folders and files in it; as `os.walk`."""
        listed = self._ask(lambda system, path: system.ls(path, detail=True))
        folders, files = list[str](), list[str]()
        for entry in listed:
            name = PurePosixPath(str(entry["name"]).rstrip("/")).name
            if self._at(str(entry["name"])).url != self.url:
                (folders if entry.get("type") == "directory" else files).append(name)
        yield self, folders, files
        for name in folders:
            yield from (self / name).walk()

    def open(self, mode: str = "rb") -> BinaryIO:
        """The file as a stream of bytes that can be sought in.

        Raises
        ------
        InputError
            If there is no such file.
        """
        if mode != "rb":
            raise ValueError(f"a file behind a URL is read as bytes, not opened as {mode!r}")
        return io.BufferedReader(_RangeReader(self, self.stat().st_size), 1 << 16)

    def read_range(self, begin: int, end: int) -> bytes:
        """Bytes begin … end − 1.

        Raises
        ------
        InputError
            If they can't all be read.
        """
        return self._ask(lambda system, path: _whole(system.cat_file(path, start=begin, end=end), end - begin))

    def refresh(self) -> None:
        """Forget what was remembered of this folder's listing."""
        self._ask(lambda system, path: system.invalidate_cache())

    def _at(self, path: str) -> UrlPath:
        """The URL of a path that the storage names."""
        return UrlPath(path if "://" in path else f"{self.scheme}://{path.lstrip('/')}")

    def _ask(self, request: Callable[[Any, str], _T]) -> _T:
        """What the storage answers; a broken connection is tried again, anything else is one sentence."""
        import fsspec

        for wait in (*_WAITS_S, None):
            try:
                system, path = fsspec.core.url_to_fs(self.url)
                return request(system, path)
            except Exception as error:  # of any kind: each storage has its own
                if wait is None or _is_final(error):
                    raise self._failure(error) from error
            time.sleep(wait)
        raise AssertionError

    def _failure(self, error: Exception) -> InputError:
        """The sentence about what the storage said."""
        kind = type(error).__name__
        said = (str(error).strip() or kind).splitlines()[0].rstrip(".")
        if isinstance(error, ImportError):
            package = _PACKAGES.get(self.scheme)
            how = "corpus-teacher[remote]" if package == "s3fs" else package
            return InputError(
                f"{self}: {self.scheme}:// needs a package that isn't installed: pip install "
                f"{how or 'what fsspec asks for'} ({said})"
            )
        if isinstance(error, FileNotFoundError):
            return InputError(f"there is no file or folder {self}")
        if kind in _NO_CREDENTIALS or "credentials" in said.lower():
            return InputError(
                f"{self}: there are no credentials for {self.scheme}://: set them as its own client reads them, in the "
                "environment or its configuration file"
            )
        if isinstance(error, PermissionError) or any(word in said for word in _REFUSED):
            return InputError(f"{self}: the credentials of this user don't suffice ({said})")
        if isinstance(error, ValueError) and "Protocol" in said:
            return InputError(f"{self}: {self.scheme}:// is no storage that fsspec knows")
        if isinstance(error, (IsADirectoryError, NotADirectoryError)):
            return InputError(f"{self} is not a file ({said})")
        tries = "" if _is_final(error) else f" after {len(_WAITS_S) + 1} tries"
        return InputError(f"{self} can't be read{tries}: {kind}: {said}")


Place = Path | UrlPath
"""A file or folder that is read: on this machine or behind a URL."""


def _is_final(error: Exception) -> bool:
    """Whether another try would end alike."""
    said = str(error)
    if type(error).__name__ in _NO_CREDENTIALS or any(word in said for word in _REFUSED):
        return True
    return isinstance(error, _FINAL) and not isinstance(error, (ConnectionError, TimeoutError))


def _whole(data: bytes, size: int) -> bytes:
    """The bytes, if they are all there."""
    if len(data) != size:
        raise ConnectionError(f"{len(data):,} bytes came, not {size:,}")
    return data


class _RangeReader(io.RawIOBase):
    """A file behind a URL, in ranges: small after a jump, larger while it is read on."""

    def __init__(self, path: UrlPath, size: int) -> None:
        self._path, self._size = path, size
        self._position = 0
        self._begin, self._block = 0, memoryview(b"")
        self._next_bytes = _FIRST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        place = self._position - self._begin
        if not 0 <= place < len(self._block):
            if self._position >= self._size:
                return 0
            follows = place == len(self._block) and len(self._block) > 0
            self._next_bytes = min(2 * self._next_bytes, _MOST_BYTES) if follows else _FIRST_BYTES
            end = min(self._size, self._position + max(self._next_bytes, len(buffer)))
            self._block = memoryview(self._path.read_range(self._position, end))
            self._begin, place = self._position, 0
        data = self._block[place : place + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
