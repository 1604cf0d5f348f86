"""Builds the guest's image without any registry: this machine's interpreter, its standard library, the guest, no shell.

Read `ensure` first. The image is a sorted tar with fixed times and owners, so the same inputs give the same bytes;
their digest is a label, and `ensure` rebuilds when the guest code or the Python on this machine changed.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sandbox.docker.engine import connect
from sandbox.host import python_files
from sandbox.types import ImageMissing, SandboxError

DEFAULT_NAME = "azr-sandbox:latest"
DIGEST_LABEL = "azr.sandbox.digest"
MODULE_ROOT = "usr/local/lib/guest"
ENTRYPOINT = ("python3", "-B", "-P", "-m", "sandbox.guest.supervisor")
MOUNT_POINTS = ("dev", "etc", "proc", "sys", "tmp", "var", "var/tmp")
ENVIRONMENT = {
    "PATH": "/usr/local/bin",
    "LD_LIBRARY_PATH": "/usr/local/lib/shared",
    "PYTHONPATH": f"/{MODULE_ROOT}",
    "PYTHONNOUSERSITE": "1",
    "LANG": "C.UTF-8",
    "LD_BIND_NOW": "1",
}

Files = dict[str, bytes | Path]
"""Path inside the image (no leading slash) to its content, or to the file that holds it."""


def ensure(name: str = DEFAULT_NAME) -> str:
    """The id of an image built from what is on this machine now; builds it when it is missing or stale."""
    files = contents()
    found = _existing(name)
    if found is not None and found[1] == digest(files):
        return found[0]
    return _import(name, files)


def build(name: str = DEFAULT_NAME, base: str | None = None) -> str:
    """Build the image and return its id, from scratch or, where a registry answers, on a base image with a Python."""
    return _import(name, contents()) if base is None else _build_on(name, base)


def require(name: str) -> str:
    """The id of the image.

    Raises:
        ImageMissing: there is none of that name.
    """
    found = _existing(name)
    if found is None:
        raise ImageMissing(f"There is no image {name!r}. Build it with `azr image build`.")
    return found[0]


def contents() -> Files:
    """Everything in the image, the guest's modules included."""
    return {**python_files.runtime(), **guest_files()}


def guest_files() -> Files:
    """Our own modules that run inside."""
    here = Path(__file__).parents[1]
    ours = [file for folder in ("shared", "guest") for file in sorted((here / folder).glob("*.py"))]
    return {f"{MODULE_ROOT}/sandbox/{path.relative_to(here)}": path for path in ours} | {
        f"{MODULE_ROOT}/sandbox/__init__.py": b""
    }


def digest(files: Mapping[str, bytes | Path]) -> str:
    """One hash over all names and contents."""
    total = hashlib.sha256(repr((ENTRYPOINT, MOUNT_POINTS, sorted(ENVIRONMENT.items()))).encode())
    for name, content in sorted(files.items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(_bytes(content)).digest())
    return total.hexdigest()


def archive(files: Mapping[str, bytes | Path]) -> bytes:
    """A tar of the files with every name in order and nothing of this moment or this machine's owners in it."""
    target = io.BytesIO()
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."} | set(MOUNT_POINTS)
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in sorted(folders):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o1777 if folder in ("tmp", "var/tmp") else 0o755))
        for name, content in sorted(files.items()):
            data = _bytes(content)
            entry = _entry(name, tarfile.REGTYPE, 0o755 if is_program(name) else 0o644)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def is_program(name: str) -> bool:
    """True for what the kernel or the loader must be able to execute."""
    return "/bin/" in name or ".so" in Path(name).name


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 0
    return entry


def _bytes(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _existing(name: str) -> tuple[str, str] | None:
    """Id and digest label of the image of that name."""
    from docker.errors import ImageNotFound

    client = connect()
    try:
        image = client.images.get(name)
    except ImageNotFound:
        return None
    finally:
        client.close()
    return str(image.id), image.labels.get(DIGEST_LABEL, "")


def _import(name: str, files: Files) -> str:
    """Load the archive into the engine, compiled modules included."""
    repository, _, tag = name.partition(":")
    data = archive({**files, **python_files.compiled(files)})
    changes = [
        f"ENTRYPOINT {_json(ENTRYPOINT)}",
        "USER 65534:65534",
        "WORKDIR /tmp",
        f"LABEL {DIGEST_LABEL}={digest(files)}",
    ]
    changes += [f"ENV {key}={value}" for key, value in ENVIRONMENT.items()]
    client = connect()
    api = cast(Any, client.api)  # the SDK annotates none of its low-level calls
    try:
        api.import_image_from_data(data, repository=repository, tag=tag or "latest", changes=changes)
    finally:
        api.close()
    return require(name)


def _build_on(name: str, base: str) -> str:
    """The same guest on a base image that brings its own Python. Needs a registry that answers."""
    from docker.errors import APIError, BuildError

    lines = [f"FROM {base}", f"COPY {MODULE_ROOT} /{MODULE_ROOT}", "USER 65534:65534", "WORKDIR /tmp"]
    lines += [f"ENV {key}={value}" for key, value in ENVIRONMENT.items() if key.startswith("PYTHON")]
    lines += [f"LABEL {DIGEST_LABEL}={digest(guest_files())}", f"ENTRYPOINT {_json(ENTRYPOINT)}"]
    context = archive({**guest_files(), "Dockerfile": "\n".join(lines).encode()})
    client = connect()
    try:
        client.images.build(fileobj=io.BytesIO(context), custom_context=True, tag=name, rm=True, pull=False)
    except (APIError, BuildError) as error:
        raise SandboxError(f"The image could not be built on {base}: {error}") from error
    finally:
        client.close()
    return require(name)


def _json(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
