"""The image's files as a folder, for jails: unpacked once, named by its content, checked before every use."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.docker import image
from sandbox.host import python_files
from sandbox.types import SandboxError

ROOT_CACHE = Path("/var/cache/azr-sandbox")
"""Root's: jails run under other users, who could not reach a folder in root's home."""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
PROGRAM, FILE, FOLDER = 0o555, 0o444, 0o755


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system on this machine."""

    path: Path
    digest: str
    """As the Docker image's label has it: one hash over the names and contents of what it was made from."""


def ensure(cache: Path | None = None) -> Root:
    """The root file system of what is on this machine now, unpacked when it is missing.

    Raises:
        SandboxError: the cache is not ours alone, or was changed.
    """
    files = image.contents()
    digest = image.digest(files)
    folder = cache or default_cache()
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER)
    _check_ours(folder)
    place = folder / digest
    if not place.exists():
        _unpack(files, place)
    _check(place)
    return Root(place / "root", digest)


def default_cache() -> Path:
    if os.geteuid() == 0:
        return ROOT_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "azr-sandbox"


def _unpack(files: image.Files, place: Path) -> None:
    """Make it beside its place and move it there whole; where another process was faster, its copy stays."""
    making = place.with_name(f".{place.name}-{secrets.token_hex(6)}")
    try:
        for folder in image.MOUNT_POINTS:
            (making / "root" / folder).mkdir(parents=True, exist_ok=True)
        for name, content in {**files, **python_files.compiled(files)}.items():
            _place(making / "root" / name, content)
        (making / "sum").write_text(_sum(making / "root"))
        making.rename(place)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        if not place.exists():
            raise SandboxError(f"The jail's files could not be written to {place}: {error}") from error


def _place(path: Path, content: bytes | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    path.chmod(PROGRAM if image.is_program(str(path)) else FILE)


def _check(place: Path) -> None:
    if _sum(place / "root") != (place / "sum").read_text():
        raise SandboxError(f"The jail's files in {place} were changed: remove that folder, it is made anew.")


def _sum(root: Path) -> str:
    """One hash over every path, its kind and its content.

    Raises:
        SandboxError: something in it could be changed by another user.
    """
    total = hashlib.sha256()
    for path in _walk(root):
        _check_ours(path)
        mode = path.lstat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else b""
        total.update(f"{path.relative_to(root)}\0{mode:o}\0".encode() + hashlib.sha256(content).digest())
    return total.hexdigest()


def _walk(root: Path) -> Iterator[Path]:
    yield root
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (Path(folder, name) for name in sorted([*folders, *names]))


def _check_ours(path: Path) -> None:
    state = path.lstat()
    if state.st_uid != os.geteuid() or (state.st_mode & OTHERS_MAY_WRITE and not stat.S_ISLNK(state.st_mode)):
        raise SandboxError(
            f"{path} belongs to another user or is writable by others, so the jail's files in it cannot be trusted: "
            "remove it, or name another folder in XDG_CACHE_HOME."
        )
