"""Having a Docker engine: found, waited for, installed or started, or refused in one clear paragraph."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandbox.types import EngineUnavailable
from scripts.ensure_engine import NO_NETWORK, VARIANTS, Host, LocalHost, ensure, main, start_by_hand
from tests.sandbox.conftest import has_runtime


class FakeDaemon:
    def __init__(self, exit_status: int | None) -> None:
        self._exit_status = exit_status
        self.is_terminated = False

    def poll(self) -> int | None:
        return self._exit_status

    def terminate(self) -> None:
        self.is_terminated = True


class FakeHost:
    """A machine made up of claims; `works_with` are the options under which its dockerd comes up."""

    def __init__(
        self, *, is_root: bool = True, programs: Sequence[str] = ("apt-get", "dockerd"), works_with: Sequence[str] = ()
    ) -> None:
        self.is_root = is_root
        self.programs = set(programs)
        self.works_with: tuple[str, ...] | None = tuple(works_with)
        self.is_up = False
        self.is_up_after_sleeps: float = float("inf")
        self.apt_works = True
        self.is_systemd_here = False
        self.living: set[str] = set()
        self.commands: list[str] = []
        self.starts: list[tuple[str, ...]] = []
        self.daemons: list[FakeDaemon] = []
        self.said: list[str] = []
        self.slept_s = 0.0

    def answers(self) -> bool:
        return self.is_up or self.slept_s >= self.is_up_after_sleeps

    def has(self, program: str) -> bool:
        return program in self.programs

    def run(self, *command: str) -> bool:
        self.commands.append(" ".join(command))
        if command[0] == "systemctl":
            self.is_up = True
        if command[-1] == "docker.io" and self.apt_works:
            self.programs.add("dockerd")
        return command[-1] != "docker.io" or self.apt_works

    def start(self, options: Sequence[str]) -> FakeDaemon:
        self.starts.append(tuple(options))
        self.is_up = self.works_with is not None and set(self.works_with) <= set(options)
        self.daemons.append(FakeDaemon(None if self.is_up else 1))
        return self.daemons[-1]

    def is_running(self, name: str) -> bool:
        return name in self.living

    def has_systemd(self) -> bool:
        return self.is_systemd_here

    def log_tail(self) -> str:
        return "level=fatal msg=no luck"

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def _no_docker_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)


def test_an_engine_that_answers_is_left_alone() -> None:
    host = FakeHost(is_root=False, programs=())
    host.is_up = True
    ensure(host)
    assert (host.commands, host.starts, host.said) == ([], [], [])


def test_a_named_engine_that_is_silent_is_not_replaced_behind_the_user_s_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    host = FakeHost()
    with pytest.raises(EngineUnavailable, match="DOCKER_HOST=tcp://elsewhere:2375 does not answer"):
        ensure(host)
    assert (host.commands, host.starts) == ([], [])


def test_without_root_the_user_is_told_what_to_do_and_nothing_is_touched() -> None:
    host = FakeHost(is_root=False)
    with pytest.raises(EngineUnavailable, match=r"only root may .*\(group docker\)"):
        ensure(host)
    assert (host.commands, host.starts) == ([], [])


def test_without_apt_get_the_user_has_to_install_it() -> None:
    with pytest.raises(EngineUnavailable, match="neither Debian nor Ubuntu"):
        ensure(FakeHost(programs=()))


def test_a_missing_engine_is_installed_and_started_and_both_steps_are_printed() -> None:
    host = FakeHost(programs=["apt-get", "docker"])  # a client alone is not an engine
    ensure(host)
    assert host.commands == ["apt-get -qq update", "apt-get -qq -y --no-install-recommends install docker.io"]
    assert host.starts == [()]
    assert [text.split(":")[1].split()[0] for text in host.said] == ["installing", "starting"]


def test_an_installation_that_fails_is_reported() -> None:
    host = FakeHost(programs=["apt-get"])
    host.apt_works = False
    with pytest.raises(EngineUnavailable, match=r"apt-get install docker\.io` failed"):
        ensure(host)


def test_an_engine_that_is_still_starting_is_waited_for() -> None:
    host = FakeHost()
    host.living = {"dockerd"}
    host.is_up_after_sleeps = 20
    ensure(host)
    assert host.starts == []


def test_systemd_starts_its_own_service() -> None:
    host = FakeHost()
    host.is_systemd_here = True
    ensure(host)
    assert (host.commands, host.starts) == (["systemctl start docker"], [])


@pytest.mark.parametrize(
    ("works_with", "attempts"),
    [((), 1), (NO_NETWORK, 2), (("--storage-driver=vfs",), 3), ((*NO_NETWORK, "--storage-driver=vfs"), 4)],
)
def test_dockerd_is_started_with_fewer_features_after_each_failure(works_with: Sequence[str], attempts: int) -> None:
    host = FakeHost(works_with=works_with)
    ensure(host)
    assert host.starts == list(VARIANTS[:attempts])
    assert not host.daemons[-1].is_terminated


def test_when_every_attempt_fails_the_end_of_the_log_is_shown_and_nothing_is_left_running() -> None:
    host = FakeHost()
    host.works_with = None
    with pytest.raises(EngineUnavailable, match=r"(?s)does not answer on this machine.*DOCKER_HOST.*no luck"):
        ensure(host)
    assert all(daemon.is_terminated for daemon in host.daemons)


def test_losing_the_race_against_another_process_is_not_a_failure() -> None:
    host = FakeHost()
    host.works_with = None
    host.is_up_after_sleeps = 1
    start_by_hand(host, VARIANTS)
    assert len(host.starts) == 1


def test_a_pid_file_of_a_dead_or_other_process_is_removed_and_a_living_one_stays(tmp_path: Path) -> None:
    host: Host = LocalHost(tmp_path)
    assert not host.is_running("dockerd")
    pid_file = tmp_path / "docker.pid"
    for stale in ("999999999", str(os.getpid()), ""):
        pid_file.write_text(stale)
        assert not host.is_running("dockerd")
        assert not pid_file.exists()


def test_a_process_that_ended_and_was_not_reaped_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/cp", "/bin/sleep", tmp_path / "dockerd"]):
        pass
    with subprocess.Popen([tmp_path / "dockerd", "0.5"]) as ending:
        (tmp_path / "docker.pid").write_text(str(ending.pid))
        assert LocalHost(tmp_path).is_running("dockerd")
        os.waitid(os.P_PID, ending.pid, os.WEXITED | os.WNOWAIT)
        assert not LocalHost(tmp_path).is_running("dockerd")


def test_the_local_host_runs_commands_and_reads_the_end_of_the_log(tmp_path: Path) -> None:
    host = LocalHost(tmp_path)
    assert host.run("true")
    assert not host.run("false")
    assert host.log_tail() == ""
    (tmp_path / "dockerd.log").write_text("\n".join(str(number) for number in range(100)))
    assert host.log_tail().splitlines()[-1] == "99"
    assert len(host.log_tail().splitlines()) < 20


@pytest.mark.docker
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dockerd") is None, reason="starting dockerd needs root and dockerd"
)
def test_a_separate_engine_really_starts(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("e")  # short: a socket's path has 107 characters at most
    command = [sys.executable, "-m", "scripts.ensure_engine", "--under", str(folder)]
    try:
        started = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (started.returncode, started.stderr.count("starting dockerd")) == (0, 1), started.stderr
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
        assert LocalHost(folder).answers()
        has_settings = Path("/etc/docker/daemon.json").exists()
        assert has_runtime("runsc") or has_settings or shutil.which("runsc") is None
        assert main(["--under", str(folder)]) == 0
    finally:
        os.kill(int((folder / "docker.pid").read_text()), signal.SIGTERM)


def test_the_command_says_why_and_fails(tmp_path: Path) -> None:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nothing.sock"}
    command = [sys.executable, "-m", "scripts.ensure_engine"]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert refused.returncode == 1
    assert "does not answer" in refused.stderr
    assert "Traceback" not in refused.stderr
