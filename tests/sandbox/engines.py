"""A separate Docker engine for a test, which may kill, stop and restart it without touching the system's engine."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from sandbox.docker import image
from scripts.ensure_engine import NO_NETWORK, VFS, Daemon, LocalHost, start_by_hand

NEEDS_ROOT = "a separate engine needs root and dockerd"
CAN_START = os.geteuid() == 0 and shutil.which("dockerd") is not None
GONE_S = 30
SDK_LEAVES_SOCKETS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""The Docker SDK leaves a socket open if no engine answers."""


class OwnEngine(LocalHost):
    """dockerd in a folder; DOCKER_HOST must name `address` while it is started or used."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder
        self._daemons: list[Daemon] = []
        self.address = f"unix://{folder}/docker.sock"

    def start(self, options: Sequence[str]) -> Daemon:
        self._daemons.append(super().start(options))
        return self._daemons[-1]

    def say(self, text: str) -> None:
        """Print nothing: the tests do not need the messages."""

    def begin(self) -> None:
        """Start it unless it already answers."""
        if not self.answers():
            start_by_hand(self, [NO_NETWORK, (*NO_NETWORK, *VFS)])

    def send(self, number: int) -> None:
        os.kill(self._process_id("docker.pid"), number)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it and wait until it is gone; SIGKILL leaves its containers running, as a crash would."""
        process = self._process_id("docker.pid")
        os.kill(process, number)
        deadline = time.monotonic() + GONE_S
        while _is_alive(process) or any(daemon.poll() is None for daemon in self._daemons):
            assert time.monotonic() < deadline, "dockerd does not end"
            time.sleep(0.02)

    def remove(self) -> None:
        """End it and remove what it left: containers whose engine was killed, mounts, files."""
        if self.is_running("dockerd"):
            self.end()
        for shim in self._shims():
            for process in (*_children(shim), shim):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in (path for path in reversed(mounts) if path.startswith(f"{self._folder}/")):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _shims(self) -> list[int]:
        """The parent processes of containers, which continue to run if the engine is killed."""
        mark = f"{self._folder}/docker/containerd/containerd.sock".encode()
        return [process for process in _processes() if mark in _read(process, "cmdline") and process != os.getpid()]

    def _process_id(self, name: str) -> int:
        return int((self._folder / name).read_text())


@contextlib.contextmanager
def own_engine(folder: Path) -> Generator[OwnEngine]:
    """A separate engine that answers and has the sandbox's image; it is removed afterwards."""
    engine = OwnEngine(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", engine.address)
            engine.begin()
            image.ensure()
        yield engine
    finally:
        engine.remove()
        gc.collect()


def _is_alive(process: int) -> bool:
    return _state(process)[:1] not in ([], ["Z"])


def _children(parent: int) -> list[int]:
    return [process for process in _processes() if _state(process)[1:2] == [str(parent)]]


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _state(process: int) -> list[str]:
    """The fields of `stat` from the state on: one letter, then the parent's number; empty if the process has ended."""
    return _read(process, "stat").rpartition(b")")[2].decode().split()


def _read(process: int, name: str) -> bytes:
    try:
        return Path("/proc", str(process), name).read_bytes()
    except OSError:
        return b""
