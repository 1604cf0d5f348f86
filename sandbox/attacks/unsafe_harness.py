"""Two careless ways to run a model's code, rebuilt on purpose as negative controls. DANGEROUS: never use them.

`unsafe_trainer.py` runs them as a process of a throwaway container and nowhere else. Standard library only.

`UnsafeBareSubprocess`  `python -c` with the program and a `print` at its end; the verdict compares what was printed
`UnsafeForkedWorker`    the published way of AZR: a long-lived fork of the trainer that `exec`s what it is sent, the
                        gold answer pasted into the source, results by pickle, the trainer evaluates what comes back
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

CHUNK = 65536
KEPT_CHARS = 400


@dataclass(frozen=True)
class Ran:
    """What the harness makes of a run."""

    status: str
    accepted: bool
    value: str


class UnsafeHarness(Protocol):
    """A careless harness inside the stand-in trainer."""

    def ran(self, program: str, call: str) -> Ran:
        """The run of a proposal, as the harness records it."""
        ...

    def has_right_answer(self, program: str, call: str, gold: str) -> bool:
        """The harness's verdict on an answer."""
        ...

    def repeated(self, program: str, call: str) -> Ran:
        """Accepted when the harness takes the program for deterministic."""
        ...

    def processes(self) -> set[int]:
        """Processes that it keeps by design."""
        ...


class UnsafeBareSubprocess:
    """A fresh `python -c` for each run, with a timeout and nothing else."""

    def __init__(self, limit_s: float, private: int) -> None:
        """`private` is the referee's descriptor: no part of the harness, so no program gets it."""
        del private
        self._limit_s = limit_s

    def ran(self, program: str, call: str) -> Ran:
        source = f"{program}\nprint(repr(f({call})))"
        try:
            done = subprocess.run(
                [sys.executable, "-c", source], check=False, capture_output=True, timeout=self._limit_s
            )
        except subprocess.TimeoutExpired:
            return Ran("timeout", accepted=False, value="")
        except (OSError, ValueError):
            return Ran("error", accepted=False, value="")
        status = "ok" if done.returncode == 0 else "killed" if done.returncode < 0 else "error"
        return Ran(status, status == "ok", done.stdout.decode("utf-8", "replace").strip())

    def has_right_answer(self, program: str, call: str, gold: str) -> bool:
        run = self.ran(program, call)
        return run.accepted and run.value == repr(gold)

    def repeated(self, program: str, call: str) -> Ran:
        first, second = self.ran(program, call), self.ran(program, call)
        return Ran(first.status, first.accepted and first == second, first.value)

    def processes(self) -> set[int]:
        return set()


class UnsafeForkedWorker:
    """One fork of the trainer serves every program; a timeout is all that stands between them."""

    def __init__(self, limit_s: float, private: int) -> None:
        self._limit_s = limit_s
        self._private = private
        self._start()

    def ran(self, program: str, call: str) -> Ran:
        return self._recorded(f"{program}\nrepr(f({call}))")

    def has_right_answer(self, program: str, call: str, gold: str) -> bool:
        result, status = self._sent(f"{program}\n{gold!r} == f({call})")
        try:
            return "error" not in status.lower() and bool(eval(str(result)))
        except Exception:
            return False

    def repeated(self, program: str, call: str) -> Ran:
        check = f"once = f({call})\nif once != f({call}): raise Exception('Non-deterministic code')\nrepr(once)"
        return self._recorded(f"{program}\n{check}")

    def processes(self) -> set[int]:
        return {self._pid}

    def _recorded(self, code: str) -> Ran:
        result, status = self._sent(code)
        is_accepted = "error" not in status.lower()
        told = "ok" if is_accepted else "timeout" if status == "Timeout Error" else "error"
        text = str(result).strip()
        if len(text) > KEPT_CHARS:
            text = f"{text[: KEPT_CHARS // 2]}...{text[-KEPT_CHARS // 2 :]}"
        return Ran(told, is_accepted, text)

    def _start(self) -> None:
        self._read, answers = os.pipe()
        questions, self._write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            for fd in (self._read, self._write, self._private):
                os.close(fd)
            unsafe_worker(questions, answers)
        os.close(questions)
        os.close(answers)

    def _sent(self, code: str) -> tuple[Any, str]:
        """The worker's result and status; a worker that hangs is killed, one that died is replaced."""
        try:
            _write(self._write, pickle.dumps(code))
            if not select.select([self._read], [], [], self._limit_s)[0]:
                return self._replaced("Timeout Error")
            answer: Any = pickle.loads(_read(self._read))
        except Exception as error:
            return self._replaced(f"Worker Error: {error}")
        return cast("tuple[Any, str]", answer) if isinstance(answer, tuple) else ("", "Worker Error")

    def _replaced(self, status: str) -> tuple[str, str]:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        os.close(self._read)
        os.close(self._write)
        self._start()
        return "", status


def unsafe_worker(questions: int, answers: int) -> NoReturn:
    """The whole life of the fork; what goes wrong in it ends it, and nothing of the trainer's code after it."""
    try:
        while True:
            _write(answers, _answered(pickle.loads(_read(questions))))
    finally:
        os._exit(1)


def _answered(code: str) -> bytes:
    try:
        *lines, last = code.split("\n")
        namespace: dict[str, Any] = {}
        exec("\n".join(lines), namespace)
        return pickle.dumps((eval(last, namespace), "Done"))
    except BaseException as error:
        return pickle.dumps(("", f"{type(error).__name__}: {error}"))


def _write(fd: int, data: bytes) -> None:
    data = len(data).to_bytes(8, "big") + data
    while data:
        data = data[os.write(fd, data) :]


def _read(fd: int) -> bytes:
    return _exactly(fd, int.from_bytes(_exactly(fd, 8), "big"))


def _exactly(fd: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        part = os.read(fd, min(length, CHUNK))
        if not part:
            raise EOFError("the pipe ended")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
