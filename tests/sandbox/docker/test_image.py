"""The image: only what it says, the same bytes twice, rebuilt when its content changed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from sandbox.docker import image
from sandbox.host import python_files


def few_files() -> image.Files:
    return {**image.guest_files(), "usr/local/bin/python3": b"program", "usr/local/lib/x.py": b"x = {1, 2, 'a', 'b'}\n"}


def test_the_same_files_give_the_same_bytes() -> None:
    archives = [image.archive({**few_files(), **python_files.compiled(few_files())}) for _ in range(2)]
    assert archives[0] == archives[1]


def test_the_archive_tells_nothing_of_this_machine_or_moment() -> None:
    with tarfile.open(fileobj=io.BytesIO(image.archive(few_files()))) as tar:
        members = tar.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
    assert [member.name for member in members if member.isfile()] == sorted(few_files())


def test_the_digest_follows_the_content_of_every_file() -> None:
    files = few_files()
    changed = {**files, "usr/local/lib/x.py": b"x = 2\n"}
    renamed = {**image.guest_files(), "usr/local/lib/y.py": b""}
    assert len({image.digest(files), image.digest(changed), image.digest(renamed)}) == 3
    assert image.digest(files) == image.digest(dict(reversed(files.items())))


def test_there_is_a_python_and_no_shell_in_it() -> None:
    names = set(image.contents())
    assert "usr/local/bin/python3" in names
    assert any(name.endswith("/encodings/__init__.py") for name in names)
    assert {Path(name).name for name in names if "/bin/" in name} == {"python3"}
    assert not [name for name in names if "site-packages" in name or "/test/" in name or "/tkinter/" in name]


def test_what_the_guest_needs_is_in_it_and_nothing_else_of_ours() -> None:
    ours = {Path(name).name for name in image.guest_files()}
    assert {"supervisor.py", "values.py", "limits.py"} <= ours
    assert not ours & {"docker.py", "pool.py", "image.py", "audit.py"}


def test_ensure_builds_once() -> None:
    assert image.ensure() == image.ensure()
