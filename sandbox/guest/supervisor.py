"""PID 1 of a sandbox: forks once for each request, watches the fork from outside, and outlives them all.

It never looks at what a program or a model wrote: it reads numbers, keeps the rest in memory that it wipes at once, and
passes on what the fork says unread. Being PID 1, no signal from inside ends it; being undumpable, no process inside can
trace it or open its pipes. After each fork it kills every other process here and empties the scratch folder.
"""

from __future__ import annotations

import _thread
import builtins
import gc
import importlib
import importlib.util
import os
import signal
import sys
from typing import NoReturn

PREIMPORTED = """
    abc ast base64 bisect collections collections.abc contextlib copy dataclasses datetime decimal enum fractions
    functools heapq io itertools json math numbers operator os re string struct sys time types typing _strptime
""".split()  # noqa: SIM905  # one word a line would hide that it is one list
"""What real programs import, loaded once here so that no fork pays for it. Not `threading` or `random` (or `queue` and
`statistics`, which import them): they hang work on every fork."""

GUARDED = (
    "sandbox.shared.limits",
    "sandbox.shared.constructors",
    "sandbox.shared.scalars",
    "sandbox.shared.tokens",
    "sandbox.shared.arithmetic",
    "sandbox.shared.literals",
    "sandbox.shared.values",
    "sandbox.shared.wire",
    "sandbox.guest.clock",
    "sandbox.guest.confine",
    "sandbox.shared.screen",
    "sandbox.guest.candidate",
    "sandbox.guest.watch",
    "sandbox.guest.warmup",
)


def main() -> NoReturn:
    if os.getpid() != 1:
        raise SystemExit("The supervisor kills every process it can see: it only runs as PID 1 of a container.")
    _prepare()
    from sandbox.guest import watch
    from sandbox.shared import wire

    while numbers := watch.read_exactly(0, wire.REQUEST.size):
        watch.serve(wire.read_request(numbers))
    raise SystemExit(0)


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for name in PREIMPORTED:
        importlib.import_module(name)
    private = dict(vars(builtins))
    for name in GUARDED:
        _load(name, private)
    importlib.import_module("sandbox.guest.clock").shift()
    importlib.import_module("sandbox.guest.warmup").warm_up()
    _use_up_process_numbers()
    importlib.import_module("sandbox.guest.watch").settle()
    gc.collect()
    gc.freeze()


def _use_up_process_numbers() -> None:
    """A thread takes a process number: the forks of two containers shall not count alike."""
    for _ in range(50 + int.from_bytes(os.urandom(2)) % 1000):
        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(done.release, ())
        done.acquire()


def _load(name: str, private: dict[str, object]) -> None:
    """Import one of our modules on builtins of its own, so that a program replaces `builtins.len` for itself only."""
    spec = importlib.util.find_spec(name)
    assert spec, name
    assert spec.loader, name
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__builtins__"] = private
    sys.modules[name] = module
    package, _, attribute = name.rpartition(".")
    setattr(sys.modules[package], attribute, module)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    main()
