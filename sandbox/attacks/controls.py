"""Negative controls: the same programs where a careless harness runs them, so that the matrix's numbers mean something.

They are dangerous, so each case has a throwaway container to itself: no network, no capabilities, an ordinary user, a
bound on memory, processes, disk and time, removed by force. What the container itself denies (the network, the
kernel) is not to the harness's credit: the counts are a lower bound of what succeeds on a host.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.attacks.cases import Case, Goal, Observation, Verdict, judged
from sandbox.attacks.matrix import Progress
from sandbox.attacks.unsafe_trainer import HARNESSES, Request
from sandbox.docker import OWNER_LABEL, owner, remove_orphans
from sandbox.engine import connect
from sandbox.types import SandboxError

if TYPE_CHECKING:
    import docker

CONTROLS = tuple(HARNESSES)
LIMIT_S = 1.0
HARD_LIMIT_S = 15
USER = "60570:60570"
AT_ONCE = 2
SENT = ("stage", "unsafe_harness", "unsafe_trainer")
BOOTSTRAP = """
import json, sys, types
sent = json.loads(sys.stdin.readline())
sys.modules["sandbox.attacks"] = types.ModuleType("sandbox.attacks")
for name, source in sent["modules"]:
    module = sys.modules["sandbox.attacks." + name] = types.ModuleType("sandbox.attacks." + name)
    exec(compile(source, name, "exec"), module.__dict__)
token, request = sent["token"], module.Request(**sent["request"])
del sent
module.main(request, token)
"""


async def run_control(
    name: str, cases: Sequence[Case], *, image: str, progress: Progress = lambda verdict: None
) -> list[Verdict]:
    """One verdict a case under the control of that name, in the order of the cases.

    Raises:
        SandboxError: the engine does not give a container.
    """
    client = connect()
    room = asyncio.Semaphore(AT_ONCE)

    async def verdict(case: Case) -> Verdict:
        async with room:
            seen = await asyncio.to_thread(observed, client, image, name, case)
        found = judged(case, seen)
        progress(found)
        return found

    try:
        await asyncio.to_thread(remove_orphans, client)
        return list(await asyncio.gather(*(verdict(case) for case in cases)))
    finally:
        client.close()


def observed(client: docker.DockerClient, image: str, control: str, case: Case) -> Observation:
    """What the referee in a fresh container saw; silence means that the attack took the referee down or went on."""
    from docker.errors import APIError, DockerException

    token = secrets.token_hex(8)
    try:
        container = client.containers.create(image, **_settings())
    except DockerException as error:
        raise SandboxError(f"The control's container could not be made: {error}") from error
    try:
        attached: Any = container.attach_socket(params={"stdin": 1, "stream": 1})
        container.start()
        attached._sock.sendall(_sent(control, case, token))
        has_ended = _waited(container)
        told = container.logs(stdout=True, stderr=False, tail=20).decode("utf-8", "replace")
        attached._sock.close()
        attached.close()
    except (DockerException, OSError) as error:
        raise SandboxError(f"The control's container failed: {error}") from error
    finally:
        with contextlib.suppress(APIError):
            container.remove(force=True)
    lines = [line.removeprefix(token) for line in told.splitlines() if line.startswith(token)]
    if lines:
        return Observation(**json.loads(lines[-1]))
    if has_ended:
        return Observation("gone", accepted=False, value="", harm="the trainer's container went down")
    return Observation("hangs", accepted=False, value="", is_overdue=True)


def _waited(container: Any) -> bool:
    """Whether the container ended by itself before the hard limit."""
    import requests

    try:
        container.wait(timeout=HARD_LIMIT_S)
    except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError):
        return False
    return True


def _sent(control: str, case: Case, token: str) -> bytes:
    here = Path(__file__).parent
    request = Request(
        harness=control,
        program=case.program,
        call=case.input,
        probe=case.probe,
        is_wavering=case.goal is Goal.WAVER,
        may_be_constant=case.may_be_constant,
        is_paid=case.family in "ABE" and case.goal is not Goal.EXHAUST,
        limit_s=LIMIT_S,
    )
    modules = [(name, (here / f"{name}.py").read_text(encoding="utf-8")) for name in SENT]
    return (json.dumps({"modules": modules, "token": token, "request": asdict(request)}) + "\n").encode()


def _settings() -> dict[str, Any]:
    from docker.types import LogConfig

    return {
        "entrypoint": ["python3", "-B", "-c", BOOTSTRAP],
        "user": USER,
        "environment": {"HOME": "/tmp", "PYTHONNOUSERSITE": ""},
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": "768m",
        "memswap_limit": "768m",
        "pids_limit": 128,
        "nano_cpus": 1_000_000_000,
        "shm_size": "16m",
        "tmpfs": {
            "/tmp": "rw,exec,nosuid,nodev,mode=1777,nr_inodes=4096,size=32m",
            "/var/tmp": "rw,nosuid,nodev,mode=1777,size=4m",
        },
        "stdin_open": True,
        "log_config": LogConfig(type="json-file", config={"max-size": "1m"}),
        "labels": {OWNER_LABEL: owner()},
    }
