"""Owners, orphans, limits, and hosts that cannot run guests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import DockerExecutor, EngineUnavailable, JailExecutor
from sandbox.host.container import is_orphan, owner

ON_ANOTHER_SYSTEM = """
import asyncio, ctypes, importlib.util, os, subprocess, sys, sysconfig, tempfile
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"):
    sys.modules[name] = None
for name in ("fork", "geteuid", "getuid", "memfd_create", "setsid", "sched_setaffinity", "O_DIRECTORY", "MFD_CLOEXEC"):
    if hasattr(os, name):
        delattr(os, name)
def cdll(name, **options): raise TypeError("CDLL(None) exists on Unix only")
ctypes.CDLL = cdll
import sandbox
sandbox.DockerExecutor(), sandbox.JailExecutor()
"""


def test_the_package_imports_without_the_modules_that_only_linux_has() -> None:
    done = subprocess.run([sys.executable, "-c", ON_ANOTHER_SYSTEM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("executor", [DockerExecutor, JailExecutor])
def test_a_system_that_cannot_run_sandboxes_is_told_what_works_and_what_to_use(
    executor: type[DockerExecutor | JailExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    async def scenario() -> None:
        async with executor():
            pass

    with pytest.raises(EngineUnavailable, match=r"need Linux.*view and audit finished runs.*WSL2"):
        asyncio.run(scenario())


def test_an_owner_is_an_orphan_only_if_it_certainly_ended() -> None:
    boot, namespace, _ = owner().split(":")
    unused = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    assert not is_orphan(owner())
    assert is_orphan(f"{boot}:{namespace}:{unused}")
    assert not is_orphan(f"another-boot:{namespace}:{unused}")
    assert not is_orphan(f"{boot}:{namespace}:not a number")


def test_a_process_of_another_user_that_proc_hides_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    boot, namespace, _ = owner().split(":")
    hidden = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not is_orphan(f"{boot}:{namespace}:{hidden}")
