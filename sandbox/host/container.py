"""What both backends put around a guest: limits, a name for its owner, and how the two seed slots differ."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from sandbox.types import Job, SandboxError

SEEDS = {0: "20250506", 1: "1"}
ZONES = {0: "AAA12", 1: "BBB-14"}
"""26 hours apart, so that the local date differs at every moment."""
SCRATCH = {0: "/tmp", 1: "/var/tmp"}
"""The only folder that a program may write, its TMPDIR, HOME and working directory."""
CLOCK_SHIFTS_S = {0: 0, 1: 400 * 86_400 + 12_345}
"""How far ahead the wall clock of a slot is, for programs that read the date (`guest/clock.py`)."""
FIRST_USER, NUM_USERS = 60578, 600
"""User ids that no distribution gives away. Each guest has one of its own, because the kernel counts a user's
processes over all containers."""
OVERHEAD_MIB = 96
OVERHEAD_PIDS = 8


@dataclass(frozen=True, slots=True)
class ContainerLimits:
    """What one container or jail may use, whatever its jobs ask for."""

    memory_mib: int = 512
    processes: int = 64
    cpus: float = 1.0
    scratch_mib: int = 16


class Users:
    """User ids, one after the other from a random start, so that two executors hardly ever share one."""

    def __init__(self) -> None:
        self._next = secrets.randbelow(NUM_USERS)

    def take(self) -> int:
        self._next += 1
        return FIRST_USER + self._next % NUM_USERS


def environment(slot: int) -> dict[str, str]:
    """What the guest of a slot finds in its environment, beside the image's own variables."""
    scratch = SCRATCH[slot]
    differing = {"PYTHONHASHSEED": SEEDS[slot], "TZ": ZONES[slot], "HOME": scratch, "TMPDIR": scratch}
    return {**differing, "SANDBOX_CLOCK_SHIFT_S": str(CLOCK_SHIFTS_S[slot])}


def check_fits(job: Job, limits: ContainerLimits) -> None:
    """See that the job asks for no more than its container has.

    Raises:
        SandboxError: it does.
    """
    fits = (
        job.limits.memory_mib + OVERHEAD_MIB <= limits.memory_mib
        and job.limits.processes + OVERHEAD_PIDS <= limits.processes
        and job.seed_slot in SEEDS
    )
    if not fits:
        raise SandboxError(f"{job.limits}, slot {job.seed_slot}: more than the containers have ({limits})")


def owner() -> str:
    """This process, named so that only a process of the same boot and pid namespace is compared with it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}:{os.getpid()}"  # noqa: PTH116  # pathlib has no better word


def is_orphan(label: str) -> bool:
    """True when the label names a process of this boot and namespace that is gone; False where that cannot be told."""
    boot, namespace, _ = owner().split(":")
    return label.startswith(f"{boot}:{namespace}:") and not Path("/proc", label.rpartition(":")[2]).exists()
