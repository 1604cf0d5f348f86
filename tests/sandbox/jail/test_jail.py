"""What the jail does around the programs: its files, its control groups, its death, its refusals."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import ContainerLimits, EngineUnavailable, JailExecutor, Job, Limits, SandboxError
from sandbox.host.container import owner
from sandbox.jail import cgroup, rootfs

ADD = "def f(x): return x + 1"
SLOW = "import time\ndef f(x):\n time.sleep(0.05)\n return x"
OWNER = (
    "import asyncio, sys\nfrom sandbox import JailExecutor, Job\n"
    "async def main():\n async with JailExecutor() as executor:\n  print('up', flush=True)\n"
    "  await executor.run([Job('def f():\\n while True: pass', ('',))])\nasyncio.run(main())"
)


def own_jails(process: int) -> list[int]:
    """The processes below one that are bubblewrap's."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "bwrap"]


def groups_of(label: str) -> list[Path]:
    found = cgroup.find()
    assert isinstance(found, cgroup.Parents), found
    return [path for folder in set(found.folders.values()) for path in folder.glob(f"{cgroup.PREFIX}{label}-*")]


def test_a_jail_killed_in_the_middle_of_a_batch_loses_no_job() -> None:
    async def scenario() -> list[str]:
        async with JailExecutor() as executor:
            known = set(own_jails(os.getpid()))
            running = asyncio.create_task(
                executor.run([Job(SLOW, (str(number),), seed_slot=number % 2) for number in range(30)])
            )
            await asyncio.sleep(0.3)
            for process in known:
                os.kill(process, signal.SIGKILL)
            return [execution.results[0].value for execution in await running]

    assert asyncio.run(scenario()) == [str(number) for number in range(30)]


def test_nothing_is_left_when_the_executor_ends() -> None:
    async def scenario() -> tuple[int, int]:
        async with JailExecutor() as executor:
            await executor.run([Job(ADD, ("1",))])
            return len(own_jails(os.getpid())), len(groups_of(owner()))

    jails, groups = own_jails(os.getpid()), groups_of(owner())
    during = asyncio.run(scenario())
    assert during[0] == len(jails) + 2
    assert during[1] > len(groups)
    assert (own_jails(os.getpid()), groups_of(owner())) == (jails, groups)


def test_no_jail_outlives_an_owner_that_is_killed_and_the_next_start_removes_its_groups() -> None:
    victim = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert victim.stdout
    assert victim.stdout.readline() == "up\n"
    label = re.sub(r"\d+$", str(victim.pid), owner())
    groups = groups_of(label)
    inside = [int(line) for group in groups for line in (group / "cgroup.procs").read_text().split()]
    assert inside
    victim.kill()
    victim.communicate()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{process}").exists() for process in inside) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [process for process in inside if Path(f"/proc/{process}").exists()]
    found = cgroup.find()
    assert isinstance(found, cgroup.Parents)
    found.remove_orphans()
    assert groups_of(label) == []


def test_groups_of_the_living_and_of_others_are_left_alone(tmp_path: Path) -> None:
    boot, namespace, _ = owner().split(":")
    names = [f"{owner()}-aa", f"{boot}:{namespace}:4194999-aa", f"other:{namespace}:4194999-aa"]
    for name in names:
        (tmp_path / f"{cgroup.PREFIX}{name}").mkdir()
    (tmp_path / "system.slice").mkdir()
    cgroup.Parents(dict.fromkeys(cgroup.NEEDED, tmp_path), is_unified=True).remove_orphans()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{cgroup.PREFIX}{names[0]}", f"{cgroup.PREFIX}{names[2]}", "system.slice"}


def unified_host(folder: Path, handed_down: str) -> Path:
    """A made-up process on a host with version 2 of control groups; returns its folder below /proc."""
    own = folder / "cgroup" / "user" / "scope"
    process = folder / "proc"
    own.mkdir(parents=True)
    process.mkdir()
    for group in (own, own.parent):
        (group / "cgroup.procs").touch()
        (group / "cgroup.subtree_control").write_text("")
    (own.parent / "cgroup.subtree_control").write_text(handed_down)
    (process / "cgroup").write_text("0::/user/scope\n")
    (process / "mountinfo").write_text(f"30 20 0:26 / {folder}/cgroup rw,nosuid - cgroup2 cgroup2 rw\n")
    return process


def test_version_2_groups_are_made_in_the_nearest_folder_that_delegates_all_controllers(tmp_path: Path) -> None:
    found = cgroup.find(unified_host(tmp_path, "cpu memory pids"))
    assert isinstance(found, cgroup.Parents)
    assert found.is_unified
    assert set(found.folders.values()) == {tmp_path / "cgroup" / "user"}


def test_a_host_that_delegates_no_memory_controller_is_reported_with_what_is_missing(tmp_path: Path) -> None:
    assert cgroup.find(unified_host(tmp_path, "cpu pids")) == "no control group for memory, pids, cpu can be made here"


def test_memory_of_all_processes_together_is_bounded() -> None:
    program = (
        "import os, time\ndef f():\n for _ in range(7):\n  if not os.fork():\n   break\n x = b'a' * 60_000_000\n"
        " time.sleep(0.5)\n return len(x)"
    )

    async def scenario() -> str:
        async with JailExecutor(container=ContainerLimits(memory_mib=256)) as executor:
            [execution] = await executor.run([Job(program, ("",), limits=Limits(memory_mib=128))])
            [after] = await executor.run([Job(ADD, ("1",), limits=Limits(memory_mib=128))])
            assert after.results[0].value == "2"
            return str(execution.status)

    assert asyncio.run(scenario()) != "ok"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    rootfs.ensure(cache)
    return cache


def test_the_root_is_unpacked_once_and_named_by_its_content(unpacked: Path) -> None:
    root = rootfs.ensure(unpacked)
    assert root.path == unpacked / root.digest / "root"
    made = root.path.stat().st_ctime_ns
    assert rootfs.ensure(unpacked).path.stat().st_ctime_ns == made
    assert [path.name for path in unpacked.iterdir()] == [root.digest]


def test_a_changed_file_is_not_used(unpacked: Path) -> None:
    place = rootfs.ensure(unpacked).path / "usr/local/lib/guest/sandbox/shared/values.py"
    content = place.read_bytes()
    try:
        place.write_bytes(content + b"\n")
        with pytest.raises(SandboxError, match=r"were changed\. Remove that folder"):
            rootfs.ensure(unpacked)
    finally:
        place.write_bytes(content)


def test_an_added_file_is_not_used(unpacked: Path) -> None:
    added = rootfs.ensure(unpacked).path / "usr/local/lib/guest/sitecustomize.py"
    try:
        added.write_text("")
        with pytest.raises(SandboxError, match="were changed"):
            rootfs.ensure(unpacked)
    finally:
        added.unlink()


def test_a_file_that_others_may_write_is_not_used(unpacked: Path) -> None:
    folder = rootfs.ensure(unpacked).path / "usr/local/lib/guest"
    try:
        folder.chmod(0o777)
        with pytest.raises(SandboxError, match="writable by others"):
            rootfs.ensure(unpacked)
    finally:
        folder.chmod(0o755)


def started() -> None:
    async def scenario() -> None:
        async with JailExecutor():
            pass

    asyncio.run(scenario())


def test_missing_bubblewrap_is_reported_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match="apt-get install bubblewrap"):
        started()


def fake_bwrap(folder: Path, lines: str) -> None:
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(0o755)
    folder.chmod(0o755)
    for parent in folder.parents[:2]:
        parent.chmod(0o755)


def test_an_old_bubblewrap_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_bwrap(tmp_path, "echo bubblewrap 0.4.1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EngineUnavailable, match=r"needs bubblewrap 0\.7"):
        started()


def test_a_host_without_user_namespaces_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusing = 'test "$1" = --version && echo bubblewrap 0.8.0 && exit\necho No permissions to create >&2\nexit 1'
    fake_bwrap(tmp_path, refusing)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EngineUnavailable, match=r"(?s)No permissions to create.*unprivileged_userns_clone=1"):
        started()


AS_NOBODY = """
import asyncio, sys
from pathlib import Path
from sandbox import EngineUnavailable, JailExecutor, Job
async def main():
    try:
        async with JailExecutor(cache=Path(sys.argv[1])):
            sys.exit("a jail without a control group")
    except EngineUnavailable as error:
        assert "sandbox.jail_cgroup = none" in str(error)
    async with JailExecutor(cache=Path(sys.argv[1]), control_group="none") as executor:
        [execution] = await executor.run([Job("import os\\ndef f(): return os.getuid() != 0", ("",))])
        print(execution.results[0].value, executor.isolation.runtime)
asyncio.run(main())
"""


@pytest.fixture
def for_nobody(unpacked: Path) -> Iterator[Path]:
    """A Python, this package and a cache that any user can reach; root's own may lie in root's home."""
    folder = Path(tempfile.mkdtemp(prefix="azr-", dir="/tmp"))
    folder.chmod(0o755)
    shutil.copytree(rootfs.ensure(unpacked).path, folder / "root")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(__file__).parents[3] / "sandbox", folder / "package" / "sandbox", ignore=ignored)
    (folder / "cache").mkdir()
    shutil.chown(folder / "cache", "nobody")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_has_jails_and_gives_up_the_control_group_by_name_only(for_nobody: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": str(for_nobody / "root/usr/local/lib/shared"),
        "PYTHONPATH": str(for_nobody / "package"),
    }
    done = subprocess.run(
        [for_nobody / "root/usr/local/bin/python3", "-B", "-c", AS_NOBODY, for_nobody / "cache"],
        capture_output=True, text=True, check=False, timeout=120, env=environment, cwd="/",
        user="nobody", group="nogroup", extra_groups=[],
    )  # fmt: skip
    assert done.stdout.startswith("True bwrap"), done.stderr
    assert done.stdout.strip().endswith("no control group")
