"""Runs one piece of hostile work in a fork and measures, from outside it, what became of it."""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.guest import candidate, confine
from sandbox.types import Limits, Status

CHUNK = 65536
KINDS = {
    candidate.VALUE: Status.OK,
    candidate.ERROR: Status.ERROR,
    candidate.NOT_A_VALUE: Status.NOT_A_VALUE,
    candidate.SYNTAX_ERROR: Status.SYNTAX_ERROR,
    candidate.MEMORY: Status.MEMORY,
    candidate.TOO_LARGE: Status.OUTPUT_LIMIT,
    candidate.FORBIDDEN: Status.FORBIDDEN,
}
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")

Work = Callable[[candidate.HandOver], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one fork."""

    status: Status
    texts: tuple[str, ...]
    """One a call, only when `status` is ok."""
    error: str
    cpu_s: float
    peak_memory_mib: float


def measured(work: Work, limits: Limits, calls: int = 1) -> Measured:
    """Fork, confine, work; stop at the first limit; leave no process and no file behind."""
    nonce = os.urandom(8).hex().encode()
    watch = _Watch(limits, calls, nonce)
    result_read, result_write = os.pipe()
    output_read, output_write = os.pipe()
    ooms = _oom_kills()
    child = os.fork()
    if child == 0:
        _be_candidate(work, limits, calls, nonce, (result_write, output_write))
    os.close(result_write)
    os.close(output_write)
    try:
        watch.until_done(child, result_read, output_read)
    finally:
        confine.kill_everything_else()
        if watch.exit is None:
            watch.exit = _Exit(*os.wait4(child, 0)[1:])
        os.close(result_read)
        os.close(output_read)
        confine.clean_scratch()
    return watch.verdict(was_oom=_oom_kills() > ooms)


def _be_candidate(work: Work, limits: Limits, calls: int, nonce: bytes, pipes: tuple[int, int]) -> None:
    try:
        confine.enter(limits, calls=calls, result_fd=pipes[0], output_fd=pipes[1])
        work(candidate.writer(confine.RESULT_FD, nonce))
    finally:
        os._exit(1)


class _Exit:
    """How the fork ended, as the kernel tells it."""

    def __init__(self, wait_status: int, usage: resource.struct_rusage) -> None:
        self.signal = os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else 0
        self.code = os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else 0
        self.cpu_s = float(usage.ru_utime + usage.ru_stime)
        self.peak_memory_mib = float(usage.ru_maxrss / 1024)


@dataclass
class _Watch:
    limits: Limits
    calls: int
    nonce: bytes
    received: bytearray = field(default_factory=bytearray)
    printed_bytes: int = 0
    stopped: Status | None = None
    exit: _Exit | None = None

    def until_done(self, child: int, result_read: int, output_read: int) -> None:
        """Read until every value is there, the fork ended, or a limit is passed. Each call has the wall time anew."""
        wakeup = _Wakeup()
        poller = select.poll()
        for fd in (result_read, output_read, wakeup.read):
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLIN)
        deadline, lines = time.monotonic() + self.limits.wall_s, 0
        try:
            while not self.is_complete() and self.exit is None and self.stopped is None:
                for fd, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000 + 1):
                    if not self.take(fd, result_read, output_read):
                        poller.unregister(fd)
                self.reap(child)
                if self.received.count(b"\n") > lines:
                    deadline, lines = time.monotonic() + self.limits.wall_s, self.received.count(b"\n")
                if time.monotonic() >= deadline and self.exit is None:
                    self.stopped = Status.TIMEOUT
            self.take(result_read, result_read, output_read)
        finally:
            wakeup.close()

    def take(self, fd: int, result_read: int, output_read: int) -> bool:
        """Read what is there; False at the end of a pipe."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        if fd == result_read:
            self.received += data
        elif fd == output_read:
            self.printed_bytes += len(data)
        most = self.calls * (self.limits.output_bytes + len(self.nonce) + 1024)
        if len(self.received) > most or self.printed_bytes > self.limits.output_bytes:
            self.stopped = Status.OUTPUT_LIMIT
        return bool(data)

    def reap(self, child: int) -> None:
        pid, wait_status, usage = os.wait4(child, os.WNOHANG)
        if pid == child:
            self.exit = _Exit(wait_status, usage)

    def is_complete(self) -> bool:
        """All values are there, or one line of failure."""
        ended = self.received.count(b"\n")
        if ended == 0:
            return False
        last = bytes(self.received).split(b"\n")[ended - 1]
        return ended >= self.calls or not last.startswith(self.nonce + candidate.VALUE)

    def verdict(self, *, was_oom: bool) -> Measured:
        status, texts, error = self.handed_over()
        end = self.exit
        cpu_s = end.cpu_s if end else 0.0
        if self.stopped is not None:
            status, error = self.stopped, f"{self.stopped} limit passed"
        elif cpu_s > self.limits.cpu_s * self.calls:
            status, error = Status.TIMEOUT, "CPU time limit passed"
        elif not self.is_complete() and end is not None and end.signal:
            status, error = _signalled(end.signal, was_oom)
        kept = texts if status is Status.OK else ()
        return Measured(status, kept, error[:500], cpu_s, end.peak_memory_mib if end else 0.0)

    def handed_over(self) -> tuple[Status, tuple[str, ...], str]:
        lines = bytes(self.received).split(b"\n")[:-1]
        if any(not line.startswith(self.nonce) for line in lines):
            return Status.ERROR, (), "something else than values came through the result pipe"
        kinds = [line[len(self.nonce) : len(self.nonce) + 1] for line in lines]
        texts = tuple(line[len(self.nonce) + 1 :].decode("utf-8", "replace") for line in lines)
        if kinds and kinds[-1] != candidate.VALUE:
            return KINDS.get(kinds[-1], Status.ERROR), (), texts[-1]
        if len(texts) != self.calls:
            code = self.exit.code if self.exit else 0
            return Status.ERROR, (), f"the program ended without handing over a value (exit code {code})"
        return Status.OK, texts, ""


def _signalled(number: int, was_oom: bool) -> tuple[Status, str]:
    if number == signal.SIGXCPU:
        return Status.TIMEOUT, "CPU time limit passed"
    if was_oom:
        return Status.MEMORY, "the container ran out of memory"
    return Status.KILLED, f"ended by signal {number}"


class _Wakeup:
    """A pipe that becomes readable when a child ends, so that nothing has to be polled."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        os.set_blocking(self.write, False)
        signal.signal(signal.SIGCHLD, _no_handler)
        signal.set_wakeup_fd(self.write, warn_on_full_buffer=False)

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.read)
        os.close(self.write)


def _no_handler(number: int, frame: object) -> None:
    """The wakeup pipe does the work; without a handler there would be no wakeup."""


def _oom_kills() -> int:
    """How many processes of this container the kernel killed for want of memory."""
    for path in OOM_COUNTERS:
        try:
            with open(path) as counters:  # noqa: PTH123  # on the way of every job
                return sum(int(line.split()[1]) for line in counters if line.startswith("oom_kill "))
        except OSError:
            continue
    return 0
