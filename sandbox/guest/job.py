"""The job process: reads one request, runs each input in forks of its own, writes one reply.

It may die of what it runs; PID 1 answers then.
"""

from __future__ import annotations

import functools
import os
import time

from sandbox import wire
from sandbox.guest import candidate, confine
from sandbox.guest.watch import Measured, Work, measured
from sandbox.types import Job, Limits, Status
from sandbox.values import NotAValue, NotCanonical, arguments_text, decode_arguments

REQUEST_READ = b"r"
REPLYING = b"w"


def serve(header: wire.Header, stages: int) -> None:
    """The whole life of this process. `stages` tells the supervisor how far it came."""
    body = read_exactly(0, header.length)
    os.write(stages, REQUEST_READ)
    confine.clean_scratch()
    reply = wire.frame(header.job_id, wire.reply_bytes(_Run(wire.read_job(body)).reply()))
    os.write(stages, REPLYING)
    while reply:
        reply = reply[os.write(1, reply) :]


def read_exactly(fd: int, length: int) -> bytes:
    """That many bytes, and not one more out of the pipe; empty at its end."""
    data = b""
    while len(data) < length:
        chunk = os.read(fd, min(length - len(data), 1 << 20))
        if not chunk:
            return b""
        data += chunk
    return data


class _Run:
    """One job, and what its forks used together."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.cpu_s = 0.0
        self.peak_memory_mib = 0.0

    def reply(self) -> wire.Reply:
        started = time.monotonic()
        results = tuple(self.result(text) for text in self.job.inputs)
        status = next((result.status for result in results if result.status is not Status.OK), Status.OK)
        return wire.Reply(status, results, time.monotonic() - started, self.cpu_s, self.peak_memory_mib)

    def result(self, text: str) -> wire.RawResult:
        evaluated = self.evaluated(text)
        if isinstance(evaluated, wire.RawResult):
            return evaluated
        ran = self.fork(
            functools.partial(candidate.run_program, self.job, evaluated), self.job.limits, calls=self.job.calls
        )
        return wire.RawResult(ran.status, evaluated, ran.texts, ran.error)

    def evaluated(self, text: str) -> str | wire.RawResult:
        """The canonical argument list: read where it is written out already, else evaluated in a fork of its own."""
        most = self.job.limits.output_bytes
        try:
            return arguments_text(decode_arguments(text, max_chars=most), most)
        except (NotCanonical, NotAValue):
            work = functools.partial(candidate.evaluate_input, text, most)
        evaluated = self.fork(work, self.job.limits)
        try:
            if evaluated.status is Status.OK:
                return arguments_text(decode_arguments(evaluated.texts[0], max_chars=most), most)
        except (NotCanonical, NotAValue) as error:
            return wire.RawResult(Status.NOT_A_VALUE, "", (), f"input: {error}")
        return wire.RawResult(evaluated.status, "", (), f"input: {evaluated.error}")

    def fork(self, work: Work, limits: Limits, calls: int = 1) -> Measured:
        outcome = measured(work, limits, calls)
        self.cpu_s += outcome.cpu_s
        self.peak_memory_mib = max(self.peak_memory_mib, outcome.peak_memory_mib)
        return outcome
