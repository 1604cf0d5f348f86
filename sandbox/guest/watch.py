"""One fork for one request, watched from outside: when it ends, what it used, how much it wrote. Read `serve` first."""

from __future__ import annotations

import mmap
import os
import resource
import select
import signal
import time

from sandbox.guest import candidate, confine
from sandbox.shared import wire
from sandbox.shared.wire import Exit, RequestHeader, Stop

TIMEOUT, TOO_MUCH = int(Stop.TIMEOUT), int(Stop.OUTPUT)
CHILD_ENDED = (int(signal.SIGCHLD),)
PAGE = mmap.PAGESIZE
PRINTED_CHUNK = 65536
LOOK_S = 0.02
"""Longest delay before the supervisor sees the end of a fork whose pipes another process keeps open."""
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


class _Wiped:
    """Memory for bytes that the supervisor does not look at. Its pages are dropped once the bytes were passed on."""

    def __init__(self, size: int) -> None:
        self.pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self.pages)

    def wipe(self, used: int) -> None:
        if used:
            self.pages.madvise(mmap.MADV_DONTNEED, 0, -(-used // PAGE) * PAGE)


_request = _Wiped(wire.MAX_BODY_BYTES + PAGE)
_reply = _Wiped(wire.REPLY.size + wire.MAX_RESULT_BYTES + PAGE)
_printed = _Wiped(PRINTED_CHUNK)


def settle() -> None:
    """Before the first request: hide this process from every other one and empty the scratch folder."""
    confine.hide_memory()
    confine.settle()


def read_exactly(fd: int, length: int) -> bytes:
    """That many bytes; empty at the end of the pipe. Never reads further, because a body may follow."""
    data = b""
    while len(data) < length:
        chunk = os.read(fd, length - len(data))
        if not chunk:
            return b""
        data += chunk
    return data


def serve(header: RequestHeader) -> None:
    """Fork, watch, clean up, reply."""
    _receive(header.body_bytes)
    result_read, result_write = os.pipe()
    output_read, output_write = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        candidate.run(header, _request.view[: header.body_bytes], result_write, output_write)
    _request.wipe(header.body_bytes)
    os.close(result_write)
    os.close(output_write)
    watch = _Watch(header, child, result_read, output_read)
    try:
        watch.until_done(started)
    finally:
        watch.end_everything()
        os.close(result_read)
        os.close(output_read)
    _send_reply(watch.exit(time.monotonic() - started))


def _receive(length: int) -> None:
    received = 0
    while received < length:
        count = os.readv(0, [_request.view[received:length]])
        if count == 0:
            raise SystemExit("The host closed the pipe in the middle of a request.")
        received += count


def _send_reply(end: Exit) -> None:
    total = wire.REPLY.size + end.result_bytes
    _reply.view[: wire.REPLY.size] = end.packed()
    sent = 0
    while sent < total:
        sent += os.write(1, _reply.view[sent:total])
    _reply.wipe(total)


class _Watch:
    """Reads both pipes of a fork until it ends or exceeds a limit. The wall time limit applies to each input."""

    def __init__(self, header: RequestHeader, child: int, result_read: int, output_read: int) -> None:
        self.header = header
        self.child = child
        self.result_read = result_read
        self.output_read = output_read
        self.result_bytes = 0
        self.printed_bytes = 0
        self.stop = 0
        self.end: tuple[int, resource.struct_rusage] | None = None

    def until_done(self, started: float) -> None:
        poller = select.poll()
        poller.register(self.result_read, select.POLLIN)
        poller.register(self.output_read, select.POLLIN)
        open_pipes, inputs_left = 2, self.header.inputs
        wall_s = self.header.wall_ms / 1000
        deadline = started + wall_s
        while not self.stop:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self.stop = TIMEOUT
                return
            ready = self.ready(poller, min(remaining, LOOK_S), open_pipes)
            if not ready and self.has_ended():
                return
            for fd, _ in ready:
                if (self.take_result() if fd == self.result_read else self.take_printed()) == 0:
                    poller.unregister(fd)
                    open_pipes -= 1
                elif fd == self.result_read and inputs_left > 1:
                    inputs_left, deadline = inputs_left - 1, time.monotonic() + wall_s

    def ready(self, poller: select.poll, seconds: float, open_pipes: int) -> list[tuple[int, int]]:
        """The pipes that can be read; empty if the fork may have ended."""
        if open_pipes:
            return poller.poll(seconds * 1000)
        if not self.has_ended():
            signal.sigtimedwait(CHILD_ENDED, seconds)
        return []

    def has_ended(self) -> bool:
        """Whether the fork itself ended. Reaps other processes that did."""
        while self.end is None:
            pid, wait_status, usage = os.wait4(-1, os.WNOHANG)
            if pid == self.child:
                self.end = wait_status, usage
            elif pid == 0:
                return False
        return True

    def take_result(self) -> int:
        """Read what the result pipe holds into wiped memory; 0 at the end of the pipe."""
        most = self.header.max_result_bytes
        start = wire.REPLY.size + self.result_bytes
        count = os.readv(self.result_read, [_reply.view[start : wire.REPLY.size + most + 1]])
        self.result_bytes += count
        if self.result_bytes > most:
            self.stop, self.result_bytes = TOO_MUCH, most
        return count

    def take_printed(self) -> int:
        """Count what was printed and drop it; 0 at the end of the pipe."""
        count = os.readv(self.output_read, [_printed.view])
        self.printed_bytes += count
        if self.printed_bytes > self.header.output_bytes:
            self.stop = TOO_MUCH
        return count

    def end_everything(self) -> None:
        """Kill every other process in the container and remove every file that the run wrote."""
        try:
            os.kill(-1, signal.SIGKILL)
            while True:
                pid, wait_status, usage = os.wait4(-1, 0)
                if pid == self.child:
                    self.end = wait_status, usage
        except (ProcessLookupError, ChildProcessError):
            confine.clean_scratch()
        self.take_result()
        _printed.wipe(min(self.printed_bytes, PRINTED_CHUNK))

    def exit(self, wall_s: float) -> Exit:
        assert self.end is not None, "the fork was not reaped"
        wait_status, usage = self.end
        is_signalled = os.WIFSIGNALED(wait_status)
        return Exit(
            run_id=self.header.run_id,
            stop=self.stop,
            was_oom=is_signalled and _ooms.grew(),
            signal=os.WTERMSIG(wait_status) if is_signalled else 0,
            exit_code=os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else 0,
            cpu_us=int((usage.ru_utime + usage.ru_stime) * 1e6),
            wall_us=int(wall_s * 1e6),
            peak_kib=usage.ru_maxrss,
            printed_bytes=self.printed_bytes,
            result_bytes=self.result_bytes,
        )


class _OomKills:
    """How many processes of this container the kernel killed because memory ran out."""

    def __init__(self) -> None:
        self.seen = self.count()

    def grew(self) -> bool:
        before, self.seen = self.seen, self.count()
        return self.seen > before

    def count(self) -> int:
        for path in OOM_COUNTERS:
            try:
                with open(path) as counters:
                    return sum(int(line.split()[1]) for line in counters if line.startswith("oom_kill "))
            except OSError:
                continue
        return 0


_ooms = _OomKills()
