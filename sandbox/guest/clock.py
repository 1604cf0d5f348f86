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


def shift() -> None:
    """Shift `time` and `datetime` by what the environment says, and take that out of the environment."""
    seconds = int(os.environ.pop(VARIABLE, "0"))
    if seconds:
        _shift_time(seconds)
        _shift_datetime(seconds)
        _shift_measures(seconds)


def _shift_measures(seconds: int) -> None:
    """What changes too slowly for two runs to tell: ticks since the start, load, number of processors."""
    times, load, count = os.times, os.getloadavg, os.cpu_count
    vars(os)["times"] = lambda: os.times_result((*times()[:4], times()[4] + seconds))
    vars(os)["getloadavg"] = lambda: tuple(average + 1.25 for average in load())
    vars(os)["cpu_count"] = lambda: (count() or 1) + 1


def _shift_time(seconds: int) -> None:
    now, now_ns = time.time, time.time_ns
    vars(time)["time"] = lambda: now() + seconds
    vars(time)["time_ns"] = lambda: now_ns() + seconds * 10**9
    for name in ("gmtime", "localtime", "ctime"):
        vars(time)[name] = _from_shifted(getattr(time, name))
    strftime, localtime = time.strftime, time.localtime
    vars(time)["strftime"] = lambda form, *at: strftime(form, *(at or (localtime(),)))
    asctime = time.asctime
    vars(time)["asctime"] = lambda *at: asctime(*(at or (localtime(),)))


def _from_shifted(convert: Callable[..., Any]) -> Callable[..., Any]:
    return lambda seconds=None: convert(time.time() if seconds is None else seconds)


def _shift_datetime(seconds: int) -> None:
    """The classes are immutable from Python, but not the dictionary behind their attributes. `today` asks `time`."""
    later = datetime.timedelta(seconds=seconds)
    now, utcnow = datetime.datetime.now, datetime.datetime.utcnow
    attributes = cast(dict[str, Any], gc.get_referents(datetime.datetime.__dict__)[0])
    attributes["now"] = staticmethod(lambda tz=None: now(tz) + later)
    attributes["utcnow"] = staticmethod(lambda: utcnow() + later)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
