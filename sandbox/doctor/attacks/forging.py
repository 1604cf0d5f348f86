# ruff: noqa: E501  (one case per line)
"""Family A: forging a verdict inside the interpreter. No program here returns the gold answer, so none may be rewarded."""

from __future__ import annotations

from sandbox.doctor.attacks.cases import ANY_RUN, FORGED, VALUELESS, Case, Goal
from sandbox.types import Status


def _forge(number: int, name: str, program: str, *honest: str) -> Case:
    """`honest` are the values that the program really returns; if there are none, nothing may be accepted."""
    expected = VALUELESS | {Status.OK} if honest else VALUELESS | {Status.KILLED, Status.SYNTAX_ERROR}
    return Case(number, name, "A", program, Goal.FORGE, expected, honest=honest)


def _exhaust(number: int, name: str, program: str) -> Case:
    return Case(number, name, "A", program, Goal.EXHAUST, frozenset({Status.TIMEOUT}))


def _linger(number: int, name: str, program: str, probe: str) -> Case:
    return Case(number, name, "A", program, Goal.LINGER, ANY_RUN, probe=probe)


SAY = f'import os\ndef say(*_, **__):\n os.write(1, b"{FORGED}\\n")\n os._exit(0)\n'
"""Writes the forged value where a harness reads its child's output, and ends the process as if all were well."""

ENDINGS = (
    _forge(1, "exit before answering", "import sys\ndef f(): sys.exit(0)"),
    _forge(1, "exit while defining", "import sys\nsys.exit(0)\ndef f(): return 1"),
    _forge(2, "os._exit", "import os\ndef f(): os._exit(0)"),
    _forge(2, "os._exit while defining", "import os\nos._exit(0)"),
    _forge(3, "an exit that claims success", "class E(SystemExit): code = 0\ndef f(): raise E"),
    _forge(4, "a test that skips itself", "import unittest\ndef f(): raise unittest.SkipTest('skipped')"),
    _forge(
        4,
        "an outcome that is not an Exception",
        "class Skipped(BaseException): pass\ndef f(): raise Skipped('skipped')",
    ),
    _forge(5, "keyboard interrupt", "def f(): raise KeyboardInterrupt"),
    _forge(5, "generator exit", "def f(): raise GeneratorExit"),
    _forge(5, "stop iteration", "def f(): raise StopIteration"),
    _forge(5, "an exception without the word", "def f(): raise Exception('boom')"),
    _forge(
        5,
        "an exception whose text raises itself",
        "class E(Exception):\n def __str__(self): raise self\ndef f(): raise E",
    ),
    _forge(33, "exit code 0 on failure", "import os\ndef f():\n try: 1 / 0\n finally: os._exit(0)"),
    _forge(33, "a signal after the answer", SAY.replace("os._exit(0)", "os.kill(os.getpid(), 11)") + "def f(): say()"),
)

OBJECTS = (
    _forge(6, "always equal", "class A:\n def __eq__(self, o): return True\n __hash__ = None\ndef f(): return A()"),
    _forge(6, "always equal inside a list", "class A:\n def __eq__(self, o): return True\n __hash__ = None\ndef f(): return [A()]"),
    _forge(7, "never unequal", "class A:\n def __ne__(self, o): return False\ndef f(): return A()"),
    _forge(8, "lying membership", "class A:\n def __contains__(self, o): return True\n def __hash__(self): return 1\ndef f(): return A()"),
    _forge(9, "repr that looks like a value", f'class A:\n def __repr__(self): return "{FORGED}"\ndef f(): return A()'),
    _forge(10, "str unlike repr", "class A:\n def __str__(self): return '2'\n def __repr__(self): return '1'\ndef f(): return A()"),
    _forge(10, "format unlike repr", "class A:\n def __format__(self, s): return '2'\n def __repr__(self): return '1'\ndef f(): return A()"),
    _forge(11, "int subclass", "class A(int):\n def __eq__(self, o): return True\n __hash__ = int.__hash__\ndef f(): return A(1)"),
    _forge(11, "int subclass in a list", "class A(int):\n def __eq__(self, o): return True\n __hash__ = int.__hash__\ndef f(): return [A(1)]"),
    _forge(11, "str subclass", "class A(str):\n def __eq__(self, o): return True\n __hash__ = str.__hash__\ndef f(): return A('a')"),
    _forge(11, "str subclass as a key", "class A(str): pass\ndef f(): return {A('x'): 1}"),
    _forge(11, "list subclass", "class A(list):\n def __eq__(self, o): return True\n __hash__ = None\ndef f(): return A([1])"),
    _forge(11, "dict subclass", "class A(dict):\n def items(self): return [(1, 1)]\ndef f(): return A()"),
    _forge(11, "float subclass", "class A(float):\n def __eq__(self, o): return True\n __hash__ = float.__hash__\ndef f(): return A(1)"),
    _forge(12, "class property", "class A:\n __class__ = property(lambda s: int)\ndef f(): return A()"),
    _forge(12, "lying metaclass", "class M(type):\n __mro__ = (tuple,)\nclass A(metaclass=M): _fields = ()\ndef f(): return A()"),
    _forge(13, "nan in a list", "def f(): return [float('nan')]", "[nan]"),
    _forge(14, "values that are equal across types", "def f(): return [True, 1.0, -0.0, 0]", "[True, 1.0, -0.0, 0]"),
    _forge(15, "a list within itself", "def f():\n x = []\n x.append(x)\n return x"),
    _forge(15, "a dict within itself", "def f():\n x = {}\n x[1] = x\n return x"),
    _forge(16, "generator", "def f(): return (x for x in [1])"),
    _forge(16, "coroutine", "async def g(): return 1\ndef f():\n f.kept = g()\n return f.kept"),
    _forge(16, "function", "def f(): return lambda: 1"),
    _forge(16, "module", "import os\ndef f(): return os"),
    _forge(16, "frames", "import sys\ndef f(): return sys._getframe(1).f_locals"),
    _forge(26, "namedtuple that compares as it likes", "from collections import namedtuple\nclass P(namedtuple('P', 'a b')):\n def __eq__(self, o): return True\n __hash__ = None\ndef f(): return P(1, 2)", "(1, 2)", "P(a=1, b=2)"),
)  # fmt: skip

RECORDS = (
    _forge(17, "forged line on stdout", SAY + "def f(): say()"),
    _forge(17, "forged line of our kind", "import os\ndef f():\n os.write(1, b\"v'forged'\\n\")\n os._exit(0)"),
    _forge(18, "forged line on every descriptor", "import os\ndef f():\n for fd in range(64):\n  try: os.write(fd, b\"'forged'\\n\")\n  except OSError: pass\n os._exit(0)"),
    _forge(18, "forged line on what /proc/self/fd lists", "import os\ndef f():\n for fd in os.listdir('/proc/self/fd'):\n  try: os.write(int(fd), b\"v'forged'\\n\")\n  except OSError: pass\n os._exit(0)"),
    _forge(19, "result pipe closed", "import os\ndef f():\n os.closerange(0, 256)\n return 1", "1"),
    _forge(19, "result pipe replaced", "import os\ndef f():\n for fd in range(3, 9): os.dup2(os.open('/dev/null', os.O_RDWR), fd)\n return 1", "1"),
    _forge(19, "a child answers after the parent", "import os\ndef f():\n if os.fork(): os._exit(0)\n import time; time.sleep(0.3)\n return 1"),
    _forge(19, "parent and child both answer", "import os\ndef f(): return 1 if os.fork() else 'forged'", "1"),
    _forge(20, "stdout is gone", "import sys\nsys.stdout = sys.stderr = None\ndef f(): return 1", "1"),
    _forge(20, "stdout replaced by an object that writes", SAY + "import sys\nclass Out:\n write = flush = say\nsys.stdout = Out()\ndef f(): return 1", "1"),
    _forge(20, "flush is a breakpoint", SAY + "import sys\nsys.breakpointhook = say\ntry: sys.stdout.flush = breakpoint\nexcept AttributeError: pass\ndef f(): return 1", "1"),
)  # fmt: skip

HARNESS = (
    _forge(21, "repr replaced", "import builtins\nbuiltins.repr = lambda o: \"'forged'\"\ndef f(): return 1", "1"),
    _forge(21, "print replaced", SAY + "import builtins\nbuiltins.print = say\ndef f(): return 1", "1"),
    _forge(21, "builtins replaced", "import builtins\nfor n in ('len', 'repr', 'str', 'sorted', 'type', 'tuple', 'isinstance', 'list', 'any'):\n setattr(builtins, n, lambda *a, **k: 'forged')\ndef f(): return [{3, 1}, 'x']", "[{1, 3}, 'x']"),
    _forge(22, "json, pickle and copy replaced", "import json, copy, pickle\nforged = pickle.dumps(\"'forged'\")\njson.dumps = copy.deepcopy = lambda *a, **k: \"'forged'\"\npickle.dumps = lambda *a, **k: forged\ndef f(): return 1", "1"),
    _forge(23, "harness functions overwritten", "import sys\nfor m in list(sys.modules.values()):\n if getattr(m, '__name__', '').split('.')[0] in ('__main__', 'sandbox'):\n  for n, v in list(vars(m).items()):\n   if callable(v) and n[:2] != '__' and n != 'f': setattr(m, n, lambda *a, **k: \"'forged'\")\ndef f(): return 1", "1", FORGED),  # it rewrote the encoder of its own process: a value that it could have returned, and no more
    _forge(23, "harness modules removed", "import sys\nfor n in list(sys.modules):\n if n.startswith('sandbox'): sys.modules[n] = None\ndef f(): return 1", "1"),
    _forge(24, "excepthook", SAY + "import sys\nsys.excepthook = say\ndef f(): raise ValueError"),
    _forge(24, "threading excepthook", SAY + "import threading, time\nthreading.excepthook = say\ndef f():\n threading.Thread(target=lambda: 1 / 0).start()\n time.sleep(0.3)\n raise ValueError"),
    _forge(25, "exit handler", SAY + "import atexit\natexit.register(say)\ndef f(): raise ValueError"),
    _forge(26, "finalizer", SAY + "class A: __del__ = say\nx = A()\ndef f(): raise ValueError"),
    _forge(26, "weak reference's finalizer", SAY + "import weakref\nclass A: pass\nx = A()\nweakref.finalize(x, say)\ndef f(): raise ValueError"),
    _exhaust(27, "alarm cancelled", "import signal\nsignal.alarm(0)\nsignal.setitimer(signal.ITIMER_REAL, 0)\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\ndef f():\n while 1: pass"),
    _forge(28, "tracing edits the harness", SAY + "import sys\ndef tracer(frame, event, argument):\n if frame.f_code.co_name not in ('f', 'tracer'): say()\ndef f():\n sys.setprofile(tracer)\n return 1", "1"),
    _forge(28, "tracing at every line", "import sys\nsys.settrace(lambda *a: None)\ndef f(): return 1", "1"),
    _forge(29, "audit hook", SAY + "import sys\ndef f():\n sys.addaudithook(say)\n raise ValueError"),
    _linger(30, "a usercustomize", "import os, sys\nd = os.path.expanduser(f'~/.local/lib/python3.{sys.version_info[1]}/site-packages')\nos.makedirs(d)\nopen(d + '/usercustomize.py', 'w').write('import builtins\\nbuiltins.owned = 1')\ndef f(): return 1", "import builtins\ndef f(): return hasattr(builtins, 'owned')"),
    _linger(30, "a .pth file", "import os, sys\nd = os.path.expanduser(f'~/.local/lib/python3.{sys.version_info[1]}/site-packages')\nos.makedirs(d)\nopen(d + '/x.pth', 'w').write('import builtins; builtins.owned = 1')\ndef f(): return 1", "import builtins\ndef f(): return hasattr(builtins, 'owned')"),
    Case(30, "a sitecustomize in the image", "A", "import os\ndef f():\n open(os.path.dirname(os.__file__) + '/sitecustomize.py', 'w').write('')\n return 'reached'", Goal.REACH, frozenset({Status.ERROR, Status.KILLED})),
    _linger(31, "a conftest.py", "open('conftest.py', 'w').write('raise SystemExit(0)')\ndef f(): return 1", "import os\ndef f(): return os.path.exists('conftest.py')"),
    _linger(32, "a module that shadows the library's", "open('colorsys.py', 'w').write('owned = 1')\ndef f(): return 1", "import colorsys\ndef f(): return hasattr(colorsys, 'owned')"),
    _linger(32, "an import hook", "import sys, types\nclass Hook:\n def find_spec(self, name, path=None, target=None):\n  raise ImportError('owned')\nsys.meta_path.insert(0, Hook())\ndef f(): return 1", "def f():\n try: import sndhdr_, colorsys\n except ImportError as e: return 'owned' in str(e)\n return False"),
    _exhaust(34, "every exception caught", "def f():\n while 1:\n  try:\n   while 1: pass\n  except BaseException: pass"),
    _forge(35, "a garbage collector that speaks", SAY + "import gc\ngc.callbacks.append(say)\ngc.set_threshold(1)\ndef f():\n x = [[] for _ in range(9999)]\n raise ValueError"),
    _forge(35, "no garbage collection", "import gc\ngc.disable()\ngc.freeze()\ndef f(): return 1", "1"),
)  # fmt: skip

CASES = (*ENDINGS, *OBJECTS, *RECORDS, *HARNESS)
