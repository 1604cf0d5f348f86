"""Where it was measured: without that a figure says nothing."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

BUSY_LOOK_S = 1.0
MAX_BUSY = 0.1
"""Share of the cores that others may use before the figures are marked as disturbed."""
MAX_LOAD = 0.5
"""The same for the load average of the last minute, a core."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The host, as it was just before the first measurement."""

    cpu: str
    cores: int
    kernel: str
    python: str
    engine: str
    """Docker engine and its default runtime; empty without one."""
    runtimes: tuple[str, ...]
    load_1min: float
    busy: float
    """Share of all cores that was in use while the benchmark did nothing."""

    @property
    def warning(self) -> str:
        """What a reader of the figures must know; empty when the machine was idle."""
        if self.busy <= MAX_BUSY and self.load_1min <= MAX_LOAD * self.cores:
            return ""
        how = f"{self.busy:.0%} of its cores, load {self.load_1min:.1f}"
        return f"the machine was busy at the start ({how}): figures are too low and scatter"


def look() -> Machine:
    """Describe this host; takes a second, in which it watches how busy the machine is."""
    engine, runtimes = _engine()
    return Machine(
        cpu=_cpu_model(),
        cores=len(usable_cores()),
        kernel=platform.release(),
        python=platform.python_version(),
        engine=engine,
        runtimes=runtimes,
        load_1min=os.getloadavg()[0],
        busy=busy_share(),
    )


def usable_cores() -> tuple[int, ...]:
    """The cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def busy_and_total() -> tuple[int, int]:
    """Clock ticks of all cores since boot: in use, and altogether. What a hypervisor took away counts as in use."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def busy_share(watch_s: float = BUSY_LOOK_S) -> float:
    """Share of all cores that is in use while this process waits."""
    busy, total = busy_and_total()
    time.sleep(watch_s)
    busy_later, total_later = busy_and_total()
    return (busy_later - busy) / max(1, total_later - total)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _engine() -> tuple[str, tuple[str, ...]]:
    from sandbox.docker.engine import connect
    from sandbox.types import EngineUnavailable

    try:
        client = connect()
    except EngineUnavailable:
        return "", ()
    about = client.info()
    client.close()
    runtimes = tuple(sorted(str(name) for name in about["Runtimes"]))
    return f"Docker {about['ServerVersion']}, {about['DefaultRuntime']}", runtimes
