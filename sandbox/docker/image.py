"""Imports the guest's files into a Docker engine as an image; no registry is needed. Read `ensure` first.

The image is a sorted tar with fixed times and owners, so the same files give the same bytes. Their digest is a label of
the image, and `ensure` rebuilds the image if the guest code or this machine's Python has changed.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any, cast

from sandbox.docker.engine import connect
from sandbox.host import image_files
from sandbox.host.image_files import ENTRYPOINT, ENVIRONMENT, MODULE_ROOT, MOUNT_POINTS, Files
from sandbox.types import ImageMissing, SandboxError

DEFAULT_NAME = "azr-sandbox:latest"
DIGEST_LABEL = "azr.sandbox.digest"


def ensure(name: str = DEFAULT_NAME) -> str:
    """The id of an up-to-date image, which is built if it is missing or out of date."""
    files = image_files.contents()
    found = _existing(name)
    if found is not None and found[1] == image_files.digest(files):
        return found[0]
    return _import(name, files)


def build(name: str = DEFAULT_NAME, base: str | None = None) -> str:
    """Build the image and return its id. With a base image, which has its own Python, a registry has to answer."""
    return _import(name, image_files.contents()) if base is None else _build_on(name, base)


def require(name: str) -> str:
    """The id of the image.

    Raises:
        ImageMissing: there is no image of that name.
    """
    found = _existing(name)
    if found is None:
        raise ImageMissing(f"There is no image {name!r}. Build it with `azr image build`.")
    return found[0]


def archive(files: Files) -> bytes:
    """A tar of the files, sorted by name, without times or owners."""
    target = io.BytesIO()
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."} | set(MOUNT_POINTS)
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in sorted(folders):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o1777 if folder in ("tmp", "var/tmp") else 0o755))
        for name, content in sorted(files.items()):
            data = image_files.read(content)
            entry = _entry(name, tarfile.REGTYPE, 0o755 if image_files.is_program(name) else 0o644)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 0
    return entry


def _existing(name: str) -> tuple[str, str] | None:
    """Id and digest label of the image; None if there is no image of that name."""
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
    """Import the files and the byte code of their modules."""
    repository, _, tag = name.partition(":")
    data = archive({**files, **image_files.compiled(files)})
    changes = [
        f"ENTRYPOINT {json.dumps(ENTRYPOINT)}",
        "USER 65534:65534",
        "WORKDIR /tmp",
        f"LABEL {DIGEST_LABEL}={image_files.digest(files)}",
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
    """Our modules on a base image."""
    from docker.errors import APIError, BuildError

    lines = [f"FROM {base}", f"COPY {MODULE_ROOT} /{MODULE_ROOT}", "USER 65534:65534", "WORKDIR /tmp"]
    lines += [f"ENV {key}={value}" for key, value in ENVIRONMENT.items() if key.startswith("PYTHON")]
    ours = image_files.guest_files()
    lines += [f"LABEL {DIGEST_LABEL}={image_files.digest(ours)}", f"ENTRYPOINT {json.dumps(ENTRYPOINT)}"]
    context = archive({**ours, "Dockerfile": "\n".join(lines).encode()})
    client = connect()
    try:
        client.images.build(fileobj=io.BytesIO(context), custom_context=True, tag=name, rm=True, pull=False)
    except (APIError, BuildError) as error:
        raise SandboxError(f"The image could not be built on {base}: {error}") from error
    finally:
        client.close()
    return require(name)
