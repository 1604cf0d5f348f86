"""Makes sure that a Docker engine answers: `python -m scripts.ensure_engine [--under FOLDER]`.

Uses the engine that is running. If none is, and the user is root on Debian or Ubuntu, it installs docker.io, starts
dockerd and leaves it running, and prints each step. Guests use no network, so an engine without one is enough.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sandbox.docker.engine import connect
from sandbox.types import EngineUnavailable

WAIT_S = 60
NO_NETWORK = ("--iptables=false", "--ip6tables=false", "--bridge=none")
VFS = ("--storage-driver=vfs",)
VARIANTS: tuple[tuple[str, ...], ...] = ((), NO_NETWORK, VFS, (*NO_NETWORK, *VFS))
"""Options to try in this order: kernels without iptables or overlayfs are common in containers and small VMs."""
LOG_LINES = 8
RUNSC_ARGUMENTS = ("--platform=ptrace", "--ignore-cgroups", "--network=none", "--oci-seccomp")
"""gVisor without KVM and delegated groups; it applies our filter only with --oci-seccomp."""
PID_FILES = {"dockerd": "docker.pid", "containerd": "docker/containerd/containerd.pid"}


class Daemon(Protocol):
    """A process that was started and left running."""

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        ...

    def terminate(self) -> None: ...


class Host(Protocol):
    """The machine, as far as this module touches it."""

    is_root: bool

    def answers(self) -> bool:
        """Whether an engine answers."""
        ...

    def has(self, program: str) -> bool: ...

    def run(self, *command: str) -> bool:
        """Run a command to its end and show its output on the terminal; True if it succeeded."""
        ...

    def start(self, options: Sequence[str]) -> Daemon:
        """Start dockerd in its own session; its output goes to the log."""
        ...

    def is_running(self, name: str) -> bool:
        """Whether the pid file of dockerd or containerd names such a running process; removes a stale file."""
        ...

    def has_systemd(self) -> bool: ...

    def log_tail(self) -> str: ...

    def sleep(self, seconds: float) -> None: ...

    def say(self, text: str) -> None: ...


def ensure(host: Host) -> None:
    """Return when an engine answers.

    Raises:
        EngineUnavailable: none answers and none could be started; the message says what to do.
    """
    if host.answers():
        return
    if named := os.environ.get("DOCKER_HOST", ""):
        raise EngineUnavailable(f"DOCKER_HOST={named} does not answer: start that engine, or unset DOCKER_HOST")
    if not host.is_root:
        raise EngineUnavailable(
            "No Docker engine answers, and only root may install or start one. Start it (`sudo systemctl start "
            "docker`), let this user use its socket (group docker), or name another engine in DOCKER_HOST."
        )
    if not host.has("dockerd"):
        _install(host)
    if host.is_running("dockerd") and _comes_up(host):
        return
    if host.has_systemd() and host.run("systemctl", "start", "docker") and _comes_up(host):
        return
    start_by_hand(host, VARIANTS)


def start_by_hand(host: Host, variants: Sequence[Sequence[str]]) -> None:
    """Start dockerd with each set of options in turn until it answers.

    Raises:
        EngineUnavailable: it never answered; the message ends with the last lines of its log.
    """
    host.is_running("dockerd")
    host.is_running("containerd")
    for options in variants:
        host.say(" ".join(["no Docker engine answers: starting dockerd", *options]))
        daemon = host.start(options)
        if _comes_up(host, daemon):
            return
        daemon.terminate()
    raise EngineUnavailable(
        "dockerd was started but does not answer on this machine. Start a Docker engine yourself, or name one in "
        f"DOCKER_HOST. The last lines of its log:\n{host.log_tail()}"
    )


def _install(host: Host) -> None:
    if not host.has("apt-get"):
        raise EngineUnavailable(
            "No Docker engine answers and dockerd is not installed; this is neither Debian nor Ubuntu, so install it "
            "with your system's package manager, or name an engine in DOCKER_HOST."
        )
    host.say("no Docker engine here: installing docker.io with apt-get (once)")
    host.run("apt-get", "-qq", "update")
    if not host.run("apt-get", "-qq", "-y", "--no-install-recommends", "install", "docker.io"):
        raise EngineUnavailable(
            "`apt-get install docker.io` failed, see above. Install a Docker engine, or name one in DOCKER_HOST."
        )


def _comes_up(host: Host, daemon: Daemon | None = None) -> bool:
    """True as soon as an engine answers; False if the daemon has ended or `WAIT_S` have passed."""
    for _ in range(WAIT_S * 2):
        if host.answers():
            return True
        if daemon is not None and daemon.poll() is not None:
            host.sleep(1)
            return host.answers()  # another process may have started an engine on the same socket first
        host.sleep(0.5)
    return False


class LocalHost:
    """This machine. `under` keeps socket, data, pid file and log in one folder, apart from the system's engine."""

    def __init__(self, under: Path | None = None) -> None:
        self.is_root = os.geteuid() == 0
        self._run_folder = under or Path("/var/run")
        self._log = under / "dockerd.log" if under else Path("/var/log/azr-dockerd.log")
        self._options = _apart(under) if under else ()

    def answers(self) -> bool:
        try:
            connect().close()
        except EngineUnavailable:
            return False
        return True

    def has(self, program: str) -> bool:
        return shutil.which(program, path=_search_path()) is not None

    def run(self, *command: str) -> bool:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False).returncode == 0

    def start(self, options: Sequence[str]) -> Daemon:
        settings = self._settings()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["dockerd", *self._options, *settings, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": _search_path()},
                start_new_session=True,
            )

    def _settings(self) -> tuple[str, ...]:
        """Options that register runsc with the engine if runsc is installed and the machine has no settings file."""
        runsc = shutil.which("runsc", path=_search_path())
        if runsc is None or Path("/etc/docker/daemon.json").exists():
            return ()
        self._run_folder.mkdir(parents=True, exist_ok=True)
        path = self._run_folder / "azr-dockerd.json"
        path.write_text(json.dumps({"runtimes": {"runsc": {"path": runsc, "runtimeArgs": list(RUNSC_ARGUMENTS)}}}))
        return (f"--config-file={path}",)

    def is_running(self, name: str) -> bool:
        pid_file = self._run_folder / PID_FILES[name]
        try:
            about = Path("/proc", pid_file.read_text().strip(), "stat").read_text()
            if f"({name})" in about and about.rpartition(")")[2].split()[0] != "Z":  # Z: a zombie
                return True
        except OSError:  # no pid file, or its process is gone
            pass
        pid_file.unlink(missing_ok=True)
        return False

    def has_systemd(self) -> bool:
        return Path("/run/systemd/system").is_dir() and self.has("systemctl")

    def log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(line[:300] for line in lines[-LOG_LINES:])

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _apart(folder: Path) -> tuple[str, ...]:
    """Options for an engine that shares nothing with another one on this machine."""
    return (
        f"--host=unix://{folder}/docker.sock",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/docker",
        f"--pidfile={folder}/docker.pid",
    )


def _search_path() -> str:
    """PATH and the sbin folders: dockerd is in one of them, and not every user's PATH contains them."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if an engine answers, else 1 after printing the reason to stderr."""
    parser = argparse.ArgumentParser(prog="ensure_engine", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--under", type=Path, help="run a separate engine in this folder")
    under: Path | None = parser.parse_args(arguments).under
    try:
        if under is None:
            ensure(LocalHost())
        else:
            os.environ["DOCKER_HOST"] = f"unix://{under}/docker.sock"
            host = LocalHost(under)
            if not host.answers():
                start_by_hand(host, [NO_NETWORK, (*NO_NETWORK, *VFS)])
    except EngineUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
