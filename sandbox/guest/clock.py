"""Another day on the wall clock for one of the seed slots, so that a program that reads the date gives itself away.

Done inside Python, because the kernel shifts no wall clock for a container; a program that reads the time by other ways
sees the true one, which never stands still between two runs either.
"""

from __future__ import annotations

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
    """The classes are immutable from Python, but the dictionaries behind their attributes are not."""
    later = datetime.timedelta(seconds=seconds)
    moment, day = _attributes(datetime.datetime), _attributes(datetime.date)
    now, utcnow, today = datetime.datetime.now, datetime.datetime.utcnow, datetime.date.today
    moment["now"] = staticmethod(lambda tz=None: now(tz) + later)
    moment["utcnow"] = staticmethod(lambda: utcnow() + later)
    moment["today"] = staticmethod(lambda: now() + later)
    day["today"] = staticmethod(lambda: today() + later)


def _attributes(kind: type) -> dict[str, Any]:
    return cast(dict[str, Any], gc.get_referents(kind.__dict__)[0])
