"""Which files of this machine make up a Python: interpreter, standard library, and the shared libraries they load."""

from __future__ import annotations

import functools
import importlib.util
import marshal
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from sandbox.types import SandboxError

SKIPPED_FOLDERS = frozenset(
    "test tests idlelib tkinter turtledemo ensurepip lib2to3 site-packages dist-packages __pycache__ pydoc_data".split()  # noqa: SIM905
)
SKIPPED_FILES = re.compile(
    r"^(turtle\.py|_tkinter\..*|_test.*|_ctypes_test.*|xx.*|.*\.(a|o|exe|pyc|pickle|h|txt|in|md))$"
)
LIBRARY_FOLDER = "usr/local/lib/shared"


def runtime() -> dict[str, bytes | Path]:
    """Path inside the image to the file on this machine."""
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    library = _standard_library()
    extensions = [path for path in library.values() if path.suffix == ".so"]
    return {
        "usr/local/bin/python3": interpreter,
        **library,
        **_shared_libraries((interpreter, *extensions)),
    }


def compiled(files: Mapping[str, bytes | Path]) -> dict[str, bytes | Path]:
    """Byte code for every module, tied to its content instead of its time, so that it is valid in the image."""
    return {_cache_name(name): _byte_code(name, content) for name, content in files.items() if name.endswith(".py")}


def _standard_library() -> dict[str, Path]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found: dict[str, Path] = {}
    for root in dict.fromkeys((Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platstdlib", vars=_BASE)))):
        for inner in _wanted(root):
            found[f"usr/local/{sys.platlibdir}/{version}/{inner}"] = root / inner
    return found


_BASE = {"platbase": sys.base_exec_prefix, "base": sys.base_prefix}


def _wanted(root: Path) -> Iterator[Path]:
    """Paths below the root. Pruned on the way, because site-packages can hold a hundred thousand files."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("config-")]
        yield from (Path(folder, name).relative_to(root) for name in names if not SKIPPED_FILES.match(name))


def _shared_libraries(binaries: tuple[Path, ...]) -> dict[str, Path]:
    """What `ldd` names, flat in one folder; the loader itself stays where the binaries ask for it."""
    found: dict[str, Path] = {}
    for line in _ldd(binaries).splitlines():
        if match := re.match(r"\s*(\S+) => (/\S+)", line):
            found[f"{LIBRARY_FOLDER}/{match.group(1)}"] = Path(match.group(2))
        elif match := re.match(r"\s*(/\S*ld-\S+)", line):
            found[match.group(1).lstrip("/")] = Path(match.group(1)).resolve()
    return found


def _ldd(binaries: tuple[Path, ...]) -> str:
    try:
        return subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError as error:
        raise SandboxError("`ldd` is needed to build the image and is not here") from error


def _cache_name(name: str) -> str:
    path = Path(name)
    return str(path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc")


def _byte_code(name: str, content: bytes | Path) -> bytes:
    source = content.read_bytes() if isinstance(content, Path) else content
    return _compile("/" + name, source)


@functools.lru_cache(maxsize=2048)
def _compile(name: str, source: bytes) -> bytes:
    code = compile(source, name, "exec", dont_inherit=True)
    unchecked_hash = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked_hash + importlib.util.source_hash(source) + marshal.dumps(code)
