"""Put a folder in place of another whole or not at all.

The new folder is staged beside the old one, on the same file system, and brought to the disk; then the two change
places in one step (``renameat2`` with RENAME_EXCHANGE on Linux, ``renamex_np`` with RENAME_SWAP on macOS), and the old
one is deleted. Whoever looks, at any moment, finds one whole folder. Where the system cannot exchange folders, the old
one is renamed first: for that instant there is none of the name, but both are there, the old one beside it.

A process that is killed leaves at most a staged or an old folder behind, named ``.NAME.saving-XXXXXXXX``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CANNOT_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM}


@contextmanager
def staged_folder(folder: Path, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``folder`` when the block ends without an exception.

    Args:
        folder: the place; its parent exists, it itself may not.
        is_ours: whether a file name at the top of the old folder is one that the block writes anew. All others are
            carried over: files as hard links (copies where there are none), folders with all they hold.

    Raises:
        OSError: the old folder is then as it was.
    """
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.saving-", dir=folder.parent))
    try:
        yield staged
        if folder.is_dir():
            carry_over(folder, staged, is_ours)
        mode = stat.S_IMODE(folder.stat().st_mode) if folder.is_dir() else 0o777 & ~_umask()
        os.chmod(staged, mode)
        sync_folder(staged)
        if folder.is_dir():
            exchange(staged, folder)
        else:
            os.rename(staged, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)  # what was staged, or by now the old folder


def carry_over(source: Path, target: Path, is_ours: Callable[[str], bool]) -> None:
    """Put everything of ``source`` that is not ours into ``target``, without overwriting anything there."""
    for entry in os.scandir(source):
        if is_ours(entry.name) or (target / entry.name).exists():
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.copytree(entry.path, target / entry.name, symlinks=True, copy_function=_link)
        else:
            _link(entry.path, target / entry.name)


def exchange(a: Path, b: Path) -> None:
    """Let two folders change places."""
    try:
        _exchange_in_one_step(a, b)
    except OSError as e:
        if e.errno not in _CANNOT_EXCHANGE:
            raise
        aside = a.with_name(a.name + "-old")
        os.rename(b, aside)
        try:
            os.rename(a, b)
        except BaseException:
            os.rename(aside, b)
            raise
        os.rename(aside, a)


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder. Systems on which a folder cannot be opened do so by themselves."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange_in_one_step(a: Path, b: Path) -> None:
    here = -100 if sys.platform == "linux" else None  # AT_FDCWD
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        call = libc.renameat2 if sys.platform == "linux" else libc.renamex_np
    except (AttributeError, OSError, TypeError) as e:
        raise OSError(errno.ENOSYS, "folders cannot be exchanged here") from e
    first, second = os.fsencode(a), os.fsencode(b)
    swap = 2  # RENAME_EXCHANGE and RENAME_SWAP have the same value
    failed = call(here, first, here, second, swap) if here is not None else call(first, second, swap)
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(b))


def _link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
