"""Files and folders that appear whole or not at all, and locks that end with their process.

Naively: write under another name, rename. Here besides: the content is on the disk before the name is (`fsync` of the
file before the rename, of the folder after it), a folder that stands at the name is exchanged for the new one in a
single step, and what a killed process left is told from what a living one is still writing by a lock that the system
drops with the process (`flock`). Errors are plain `OSError`s: callers say in their own words what was being written.

Leftovers bear these names beside the final NAME, and the next writer of NAME removes them: `.NAME.partial` of a file,
`.NAME.building-XXXXXXXX` and the like of a folder, `.NAME.old-XXXXXXXX` of a folder that was being replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # not on every system: nothing is locked there, and leftovers stay
    fcntl = None  # type: ignore[assignment]

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_PLAIN = getattr(os, "O_PLAIN", 0) | getattr(os, "O_BINARY", 0)
_NOREPLACE, _EXCHANGE = 1, 2  # flags of renameat2(2)
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
NO_LOCKS = (errno.ENOLCK, errno.EBADF, *_UNSUPPORTED)


# files


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """A file that takes the name path, whole and on the disk, when the block ends; if the block fails, nothing changes.

    Where path is a link, the file that it points to is replaced; a device or a pipe is written to directly.

    Parameters
    ----------
    path : path
    overwrite : bool
        Replace a file that stands there; its permissions stay.

    Raises
    ------
    FileExistsError
        A file stands there, and overwrite is False.
    IsADirectoryError
    OSError
        No space, no permission, no such folder.

    Notes
    -----
    Two processes that write the same file take turns; the last one's content stays.
    """
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
    target = Path(os.path.realpath(path))
    try:
        mode: int | None = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if mode is not None and not stat.S_ISREG(mode):
        with target.open("wb") as file:
            yield file
        return
    partial, descriptor = _open_partial(target)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, stat.S_IMODE(mode))
            os.fsync(descriptor)
            if fcntl is not None:  # while it is locked; elsewhere an open file can't be renamed
                _name(partial, target, overwrite)
        if fcntl is None:
            _name(partial, target, overwrite)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_folder(target.parent)


def _name(partial: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(partial, target)
    else:
        rename_new(partial, target)


def write_file(path: str | os.PathLike[str], content: bytes, *, overwrite: bool = True) -> None:
    """Write content as a `whole_file`."""
    with whole_file(path, overwrite=overwrite) as file:
        file.write(content)


def _open_partial(target: Path) -> tuple[Path, int]:
    """The file that is written in target's place, locked and empty: what a killed process left of it is taken over."""
    partial = target.with_name(f".{target.name}.partial")
    while True:
        descriptor = os.open(partial, os.O_CREAT | os.O_RDWR | _PLAIN | _NOFOLLOW, 0o666)
        try:
            _locked(descriptor, partial, wait=True)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            with contextlib.suppress(OSError):
                partial.unlink()
            partial = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
            return partial, os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | _PLAIN, 0o666)
        if is_at(descriptor, partial):
            os.ftruncate(descriptor, 0)
            return partial, descriptor
        os.close(descriptor)  # whoever held it has given the file its name, or removed it


def stamp_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """What tells a file from its successor under the same name: device, inode, size, time of change (ns)."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file or folder still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Put the names in a folder on the disk, where the system can."""
    with contextlib.suppress(OSError):  # not of every system and file system
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Put a folder and all in it on the disk: of files that others wrote."""
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | _NOFOLLOW)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        sync_folder(folder)


# names


def rename_new(source: Path, target: Path) -> None:
    """Rename, but never replace.

    Raises
    ------
    FileExistsError
        Something stands at target. (On systems without renameat2, what appears there in the same moment isn't seen.)
    """
    if not _renameat2(source, target, _NOREPLACE):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
        source.rename(target)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system can't."""
    return _renameat2(one, other, _EXCHANGE)


@cache
def _libc_renameat2() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    return function


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    function = _libc_renameat2()
    if function is None:
        return False
    sys.audit("os.rename", os.fspath(source), os.fspath(target), -1, -1)
    current = -100  # AT_FDCWD
    if function(current, os.fsencode(source), current, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))


# locks


class Lock:
    """A lock on a file or folder; it ends with `release`, or with this process, however that ends.

    A forked child doesn't have it.
    """

    def __init__(self, descriptor: int, removed: Path | None = None) -> None:
        self._descriptor: int | None = descriptor
        self._removed = removed
        _held.add(self)

    def release(self) -> None:
        """Let go, and remove a file that was made for the lock; a second time does nothing."""
        if self._removed is not None:
            with contextlib.suppress(OSError):
                self._removed.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the lock's file in this process: another that has it open goes on holding the lock."""
        descriptor, self._descriptor, self._removed = self._descriptor, None, None
        if descriptor is not None:
            os.close(descriptor)

    def is_at(self, path: Path) -> bool:
        """Whether what is locked still has this name."""
        return self._descriptor is not None and is_at(self._descriptor, path)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def try_lock(path: str | os.PathLike[str], *, wait: bool = False) -> Lock | None:
    """Lock a file or folder that is there; None where another holds it (another process, or this one).

    Parameters
    ----------
    path : path
    wait : bool
        Wait until it is free.

    Raises
    ------
    OSError
        There is no such file, or the system has no such locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), os.fspath(path))
    descriptor = os.open(path, os.O_RDONLY | _PLAIN | _NOFOLLOW)
    return Lock(descriptor) if _locked(descriptor, path, wait=wait) else None


def lock_file(path: Path, content: bytes = b"") -> Lock | None:
    """Make a file and hold it: a sign for others that is gone when this process is; None where another holds it.

    Parameters
    ----------
    path : Path
        Removed by `Lock.release`; what a killed process left of it is taken over.
    content : bytes
        For who finds it held, such as the number of this process.

    Raises
    ------
    OSError
        The file can't be written, or the system has no such locks.
    """
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | _PLAIN | _NOFOLLOW, 0o666)
        try:
            if not _locked(descriptor, path):
                return None
        except OSError:
            path.unlink(missing_ok=True)
            raise
        if is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, content)
            return Lock(descriptor, path)
        os.close(descriptor)


def _locked(descriptor: int, path: str | os.PathLike[str], *, wait: bool = False) -> bool:
    """Lock an open file; where that fails it is closed."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), os.fspath(path))
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return False
    except BaseException:
        os.close(descriptor)
        raise
    return True


# folders


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new, locked folder in parent, to be filled and placed; if it isn't placed, it is removed.

    What killed processes left under the same prefix is removed first.

    Raises
    ------
    OSError
    """
    clear_leftovers(parent, prefix)
    folder, lock = _locked_folder(parent, prefix)
    made = folder.stat()
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            if os.path.samestat(made, folder.stat(follow_symlinks=False)):  # else it was placed
                shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.release()


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, Lock | None]:
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(4)}"
        try:
            folder.mkdir()
            lock = try_lock(folder)
        except (FileExistsError, FileNotFoundError):
            if not parent.is_dir():
                raise
            continue
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return folder, None  # after a kill it stays
        if lock is not None:
            if folder.exists():
                return folder, lock
            lock.release()  # another process took it for a leftover before it was locked


def clear_leftovers(parent: Path, *prefixes: str) -> None:
    """Remove the scratch folders that killed processes left in parent; those of living ones are left alone."""
    for folder in _leftovers(parent, *prefixes):
        with contextlib.suppress(OSError):
            lock = try_lock(folder)
            if lock is not None:
                with lock:
                    shutil.rmtree(folder, ignore_errors=True)


def _leftovers(parent: Path, *prefixes: str) -> list[Path]:
    """Folders in parent that bear the name of a leftover, in order."""
    named = re.compile(f"({'|'.join(map(re.escape, prefixes))})[a-z0-9_]{{8}}")
    try:
        with os.scandir(parent) as entries:
            found = [one.name for one in entries if named.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [parent / name for name in sorted(found)]


def place_folder(
    folder: Path,
    path: Path,
    *,
    check: Callable[[Path], None] | None = None,
    remove: Callable[[Path], None] = shutil.rmtree,
) -> None:
    """Give a scratch folder, whose files are on the disk already, its name, in one step.

    Parameters
    ----------
    folder, path : Path
        On one file system, side by side.
    check : callable, optional
        Takes a folder that stands at path, and raises if it must not be replaced; it is asked again with the folder
        that was in fact replaced, and what it raises then takes the exchange back. None: nothing is ever replaced.
    remove : callable
        Removes the folder that was replaced; open files and maps of it stay valid.

    Raises
    ------
    FileExistsError
        Something stands at path, and check is None.
    OSError

    Notes
    -----
    Where names can't be exchanged (anything but Linux, and some file systems of networks), the old folder is renamed
    and then the new one: a process that is killed in between leaves nothing at path, and the next writer puts the old
    one back (`recover`).
    """
    sync_folder(folder)
    if check is None or not os.path.lexists(path):
        rename_new(folder, path)
        sync_folder(path.parent)
        return
    with _lock_where_it_stands(path):
        check(path)
        if exchange(folder, path):
            try:
                check(folder)
            except BaseException:
                exchange(folder, path)
                raise
        else:
            old = path.with_name(f"{_old_prefix(path)}{secrets.token_hex(4)}")
            with _parent_lock(path):
                path.rename(old)
                try:
                    rename_new(folder, path)
                except BaseException:
                    old.rename(path)
                    raise
                old.rename(folder)
        sync_folder(path.parent)
        remove(folder)


def _old_prefix(path: Path) -> str:
    return f".{path.name}.old-"


@contextlib.contextmanager
def _lock_where_it_stands(path: Path) -> Iterator[None]:
    """Hold the folder that has the name path, so that no other process replaces it or takes it for a leftover."""
    while True:
        try:
            lock = try_lock(path, wait=True)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            lock = None
        if lock is None or lock.is_at(path):
            break
        lock.release()
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def recover(path: Path, is_whole: Callable[[Path], bool]) -> None:
    """Put back what a process that was killed amid a replacement had taken away, and remove what it left.

    Parameters
    ----------
    path : Path
    is_whole : callable
        Whether a folder is what stood at path; others are left alone.
    """
    if not _leftovers(path.parent, _old_prefix(path)):
        return
    with _parent_lock(path):
        for old in _leftovers(path.parent, _old_prefix(path)):
            inner = old / path.name  # how earlier versions kept it
            kept = inner if inner.is_dir() else old
            if not os.path.lexists(path) and is_whole(kept):
                with contextlib.suppress(OSError):
                    rename_new(kept, path)
                    sync_folder(path.parent)
            elif is_whole(path) and (kept is inner or is_whole(old)):
                shutil.rmtree(old, ignore_errors=True)
            with contextlib.suppress(OSError):
                old.rmdir()  # where nothing is left in it


def is_being_replaced(path: Path) -> bool:
    """Whether nothing stands at path for the moment only: a folder that was there waits beside it."""
    return not os.path.lexists(path) and bool(_leftovers(path.parent, _old_prefix(path)))


@contextlib.contextmanager
def _parent_lock(path: Path) -> Iterator[None]:
    """Hold the folder that holds path, for the moment of two renames."""
    lock = None
    with contextlib.suppress(OSError):
        lock = try_lock(path.parent, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
