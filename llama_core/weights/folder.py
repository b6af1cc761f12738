"""Model folders on disk: where they are, and which files in them may be opened.

A file that an index names must be a plain name inside the folder. A symbolic link is followed only while it stays
inside the folder, or leads to the blobs beside it in the cache that ``huggingface_hub`` keeps
(``models--NAME/snapshots/REVISION/FILE -> ../../blobs/HASH``), also from a folder within a snapshot, such as the
``original`` that holds Meta's form. Any other link would load weights, or show bytes, from a place that the folder does
not own; it is refused, with the advice to copy the file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from llama_core.errors import LlamaCoreError, WeightsError

#: Model folders that come with the package.
PACKAGED = {"stories": Path(__file__).resolve().parent.parent / "stories"}


def model_folder(name: str | os.PathLike[str]) -> Path:
    """The model folder of that name: one that comes with the package (``"stories"``) or a path.

    A folder of your own that is called ``stories`` is ``"./stories"``.

    Raises:
        WeightsError: when there is no such folder.
    """
    if isinstance(name, str) and name in PACKAGED:
        folder = PACKAGED[name]
    else:
        try:
            folder = Path(name).expanduser()
        except (TypeError, RuntimeError) as e:
            raise WeightsError(
                f"{repr(name)[:200]} names no folder: {e}",
                key="folder",
                expected="the path of a model folder, as text",
                actual=repr(name)[:200],
            ) from e
    expected = f"a folder with config.json and model.safetensors, or one of: {', '.join(PACKAGED)}"
    try:
        mode = os.stat(folder if str(name) else "").st_mode  # Path("") would be the working directory
    except (OSError, ValueError) as e:
        raise WeightsError(
            f"there is no model folder {str(name)[:200]!r}",
            key="folder",
            expected=expected,
            actual=_reason(e),
            hint="give the path of a downloaded model folder; nothing is fetched from the network",
        ) from e
    if not stat.S_ISDIR(mode):
        raise WeightsError(
            f"{str(name)[:200]!r} is {file_kind(mode)}, not a folder",
            file=folder,
            key="folder",
            expected=expected,
            actual=file_kind(mode),
            hint="give the folder that the file lies in" if stat.S_ISREG(mode) else None,
        )
    return folder


def named_path(name: Any, key: str, error: type[LlamaCoreError]) -> Path:
    """What a person gave as the path of a file or folder, which may not be there.

    Raises:
        error: it can be no path here: no text, a NUL in it, too long, the home of somebody who does not exist.
    """
    try:
        path = Path(name).expanduser()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except (TypeError, ValueError, RuntimeError, OSError) as e:
        shown = repr(name)[:200]
        raise error(f"{shown} can be no path: {_reason(e)}", key=key, expected="a path, as text", actual=shown) from e
    return path


def check_plain_name(name: str, index: Path, key: str) -> None:
    """Refuse a file name from an index that is anything but a plain name.

    Raises:
        WeightsError: for separators, ``..``, drive letters, absolute paths, control characters, the empty name.
    """
    plain = bool(name) and name.isprintable() and name not in (".", "..") and not set(name) & set("/\\:")
    plain = plain and len(name.encode()) <= 255  # longer ones are no names to any file system
    if not plain:
        raise WeightsError(
            f"the index names the file {name[:80]!r}, which is not a plain name inside the folder",
            file=index,
            key=key,
            expected="a name such as model-00001-of-00002.safetensors",
            actual=repr(name[:80]),
            hint="do not trust this folder unless you know why its index leads elsewhere",
        )


def open_regular(folder: Path, name: str, error: type[LlamaCoreError] = WeightsError) -> BinaryIO:
    """Open ``folder/name`` for reading, if it is a regular file that belongs to the folder (see the module).

    A pipe or a device is neither waited for nor read.

    Raises:
        error: when the file is missing, is no regular file, cannot be read, or is a link that leads elsewhere.
    """
    path = folder / name
    try:
        _check_link(folder, path, error)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as e:
        broken = path.is_symlink()
        raise error(
            f"{name} is {'a link to a file that is not there' if broken else 'missing'}",
            file=path,
            expected="a regular file",
            actual="a broken symbolic link" if broken else "nothing",
            hint="the download may be incomplete" if broken else None,
        ) from e
    except OSError as e:
        raise error(f"{name} cannot be opened: {_reason(e)}", file=path, actual=_reason(e)) from e
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise error(f"{name} is {file_kind(mode)}", file=path, expected="a regular file", actual=file_kind(mode))
    return os.fdopen(descriptor, "rb")


def read_small_file(folder: Path, name: str, limit: int, error: type[LlamaCoreError]) -> bytes:
    """All bytes of a file that has no business being larger than ``limit`` bytes.

    Raises:
        error: when it is larger, or for any reason that ``open_regular`` gives.
    """
    with open_regular(folder, name, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise error(
                f"{name} has {size:,} bytes",
                file=folder / name,
                expected=f"at most {limit:,} bytes",
                actual=f"{size:,}",
            )
        return file.read(limit + 1)


def file_kind(mode: int) -> str:
    """What ``st_mode`` says a path is, in words."""
    kinds = (
        (stat.S_ISREG, "a regular file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    )
    return next((words for test, words in kinds if test(mode)), "not a regular file")


def _check_link(folder: Path, path: Path, error: type[LlamaCoreError]) -> None:
    if not path.is_symlink():
        return
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError) as e:  # links that lead in a circle
        raise error(
            f"{path.name} is a symbolic link that leads nowhere",
            file=path,
            expected="a regular file",
            actual="links that lead in a circle",
            hint="copy the file itself into the folder",
        ) from e
    snapshots = next((place for place in home.parents if place.name == "snapshots"), None)
    allowed = [home] if snapshots is None else [home, snapshots.parent / "blobs"]
    if not any(target.is_relative_to(place) for place in allowed):
        raise error(
            f"{path.name} is a symbolic link that leads out of the folder",
            file=path,
            expected=f"a file inside {home}",
            actual=str(target),
            hint="if you mean that file, copy or hard-link it into the folder",
        )


def _reason(e: Exception) -> str:
    return (e.strerror if isinstance(e, OSError) else None) or str(e)
