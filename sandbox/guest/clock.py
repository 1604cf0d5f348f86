"""Another day and another machine for one of the seed slots, so that a program that reads them gives itself away.

Done inside Python, because the kernel shifts no wall clock for a container; a program that reads the time by other ways
sees the true one, which never stands still between two runs either.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import os
import time
from collections.abc import Callable
from typing import Any, cast

VARIABLE = "SANDBOX_CLOCK_SHIFT_S"
MORE_LOAD = 1.25


def shift() -> None:
    """Shift the clocks by what the environment says, and take that out of the environment."""
    seconds = int(os.environ.pop(VARIABLE, "0"))
    if seconds:
        _shift_time(time, seconds)
        _shift_datetime(datetime.datetime, datetime.timedelta(seconds=seconds))
        _shift_measures(os, seconds)


def _shift_time(module: Any, seconds: int) -> None:
    now, strftime, asctime, localtime = time.time, time.strftime, time.asctime, time.localtime
    for name in ("time", "monotonic", "perf_counter", "clock_gettime"):
        setattr(module, name, _later(getattr(time, name), seconds))
        setattr(module, f"{name}_ns", _later(getattr(time, f"{name}_ns"), seconds * 10**9))
    for name in ("gmtime", "localtime", "ctime"):
        setattr(module, name, _from_shifted(getattr(time, name)))

    def moment(given: tuple[Any, ...]) -> tuple[Any, ...]:
        return given or (localtime(now() + seconds),)

    def shifted_strftime(form: str, *given: Any) -> str:
        return strftime(form, *moment(given))

    def shifted_asctime(*given: Any) -> str:
        return asctime(*moment(given))

    module.strftime, module.asctime = shifted_strftime, shifted_asctime


def _later(clock: Callable[..., Any], by: int) -> Callable[..., Any]:
    return lambda *which: clock(*which) + by


def _from_shifted(convert: Callable[..., Any]) -> Callable[..., Any]:
    def converted(seconds: float | None = None) -> Any:
        return convert(time.time() if seconds is None else seconds)

    return converted


def _shift_datetime(kind: Any, later: datetime.timedelta) -> None:
    """The class is immutable from Python, but not the dictionary behind its attributes. `today` asks `time` anyway."""
    now, utcnow = kind.now, kind.utcnow

    def shifted_now(tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return now(tz) + later

    attributes = cast(dict[str, Any], gc.get_referents(kind.__dict__)[0])
    attributes["now"] = staticmethod(shifted_now)
    attributes["utcnow"] = staticmethod(lambda: utcnow() + later)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


def _shift_measures(module: Any, seconds: int) -> None:
    """What changes too slowly for two runs to tell: ticks since the start, load, number of processors."""
    times, load, count = os.times, os.getloadavg, os.cpu_count
    module.times = lambda: os.times_result((*times()[:4], times()[4] + seconds))
    module.getloadavg = lambda: tuple(average + MORE_LOAD for average in load())
    module.cpu_count = lambda: (count() or 1) + 1
