"""Runs inside a container, from `python3 -c`: the least that any way of running a program in Python must do.

Standard library only, and without any confinement of ours: that is the point. Requests and replies are JSON behind
four bytes of length. `fork`: fork, compile, exec, call, `repr` over a pipe, reap. `fresh`: the same by a new
interpreter. `busy`: a loop that only computes, to see how well this machine's cores scale.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import Any

CHUNK = 65536
LENGTH_BYTES = 4


def main() -> None:
    """Answer requests until the host hangs up; what programs print goes nowhere."""
    replies = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)
    while head := _read(LENGTH_BYTES):
        request = json.loads(_read(int.from_bytes(head, "big")))
        body = json.dumps(answer(request)).encode()
        _write(replies, len(body).to_bytes(LENGTH_BYTES, "big") + body)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "prepare":
        return {"missing": prepare(request["modules"])}
    if request["do"] == "busy":
        busy(request["rounds"])
        return {}
    way = {"fork": fork, "fresh": fresh}[request["do"]]
    before = cpu_s()
    runs = [way(program, text) for program, text in request["programs"]]
    values = sum(bool(value) for _, value in runs)
    return {"cpu_s": cpu_s() - before, "seconds": [took for took, _ in runs], "values": values}


def cpu_s() -> float:
    """Processor seconds of this process and the children that it reaped."""
    return sum(os.times()[:4])


def prepare(modules: list[str]) -> list[str]:
    """Be as warm as the supervisor is; returns the modules that are not in this image."""
    missing: list[str] = []
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    gc.collect()
    gc.freeze()
    return missing


def fork(program: str, text: str) -> tuple[float, bytes]:
    """Seconds and value of one program in a fork."""
    started = time.perf_counter()
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            namespace: dict[str, Any] = {"__name__": "program"}
            exec(compile(program, "<program>", "exec", dont_inherit=True), namespace)
            os.write(target, repr(eval(f"f({text}\n)", namespace)).encode("utf-8", "backslashreplace"))
        finally:
            os._exit(0)
    os.close(target)
    value = _drain(source)
    os.waitpid(child, 0)
    return time.perf_counter() - started, value


def fresh(program: str, text: str) -> tuple[float, bytes]:
    """The same with an interpreter that starts for it alone."""
    started = time.perf_counter()
    source, target = os.pipe()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-B", "-P", "-c", whole_program(program, text)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, target, 1), (os.POSIX_SPAWN_CLOSE, source)],
    )
    os.close(target)
    value = _drain(source)
    os.waitpid(child, 0)
    return time.perf_counter() - started, value


def whole_program(program: str, text: str) -> str:
    """A program that calls itself and prints what it gives."""
    return f"{program}\nprint(repr(f({text}\n)))"


def busy(rounds: int) -> int:
    value = 0
    for step in range(rounds):
        value = (value * 31 + step) % 1_000_003
    return value


def _drain(source: int) -> bytes:
    data = b""
    while chunk := os.read(source, CHUNK):
        data += chunk
    os.close(source)
    return data


def _read(count: int) -> bytes:
    """That many bytes; empty at the end of the pipe."""
    data = b""
    while len(data) < count:
        chunk = os.read(0, min(CHUNK, count - len(data)))
        if not chunk:
            return b""
        data += chunk
    return data


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


if __name__ == "__main__":
    main()
