"""Progress from another process: whoever trains writes lines to a file, whoever shows them follows it."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

POLL_S = 0.2


class Watcher(Protocol):
    """Shows a run to a person."""

    def note(self, text: str) -> None:
        """Show what happens outside the steps."""
        ...

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """A step is done; step 0 is the evaluation before training."""
        ...


class Relay:
    """Implements `Watcher` by a line of JSON for each call. A context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def note(self, text: str) -> None:
        self._write({"note": text})

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        self._write({"step": step, "total": total, "metrics": dict(metrics)})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


@contextmanager
def following(path: Path, watcher: Watcher) -> Generator[None]:
    """While inside, what is written to `path` is shown, to the last line."""
    path.touch()
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(path, watcher, ended), name="relay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(path: Path, watcher: Watcher, ended: threading.Event) -> None:
    with path.open(encoding="utf-8") as file:
        begun = ""
        while True:
            is_last = ended.wait(POLL_S)
            *lines, begun = (begun + file.read()).split("\n")
            for line in lines:
                _show(cast("dict[str, Any]", json.loads(line)), watcher)
            if is_last:
                return


def _show(line: Mapping[str, Any], watcher: Watcher) -> None:
    if "note" in line:
        watcher.note(cast(str, line["note"]))
    else:
        watcher.step(cast(int, line["step"]), cast(int, line["total"]), cast("dict[str, float]", line["metrics"]))
