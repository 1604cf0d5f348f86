# ruff: noqa: E501  (tables read better with a case a line)
"""Programs that try to forge, steal, exhaust, escape or linger, and what each must get instead."""

from __future__ import annotations

import pytest

from sandbox import Limits, Status, decode
from tests.sandbox.conftest import Running

OK, ERROR, KILLED, TIMEOUT, MEMORY = Status.OK, Status.ERROR, Status.KILLED, Status.TIMEOUT, Status.MEMORY
NOT_A_VALUE, OUTPUT_LIMIT, SYNTAX_ERROR = Status.NOT_A_VALUE, Status.OUTPUT_LIMIT, Status.SYNTAX_ERROR

NO_VALUE = {
    "exit before answering": "import sys\ndef f(): sys.exit(0)",
    "os._exit": "import os\ndef f(): os._exit(0)",
    "an exit that claims success": "class E(SystemExit): code = 0\ndef f(): raise E",
    "keyboard interrupt": "def f(): raise KeyboardInterrupt",
    "generator exit": "def f(): raise GeneratorExit",
    "an exception whose text hangs on nothing": "class E(Exception):\n def __str__(self): raise self\ndef f(): raise E",
    "always equal": "class A:\n def __eq__(self, o): return True\n __hash__ = None\ndef f(): return A()",
    "repr that looks like a value": "class A:\n def __repr__(self): return '42'\ndef f(): return A()",
    "class property": "class A:\n __class__ = property(lambda s: int)\ndef f(): return A()",
    "int subclass": "class A(int):\n def __eq__(self, o): return True\n __hash__ = int.__hash__\ndef f(): return [A(1)]",
    "str subclass as a key": "class A(str): pass\ndef f(): return {A('x'): 1}",
    "dict subclass": "class A(dict):\n def items(self): return [(1, 1)]\ndef f(): return A()",
    "lying metaclass": "class M(type):\n __mro__ = (tuple,)\nclass A(metaclass=M): _fields = ()\ndef f(): return A()",
    "module": "import os\ndef f(): return os",
    "forged line on stdout": "import os\ndef f():\n os.write(1, b'v42\\n')\n os._exit(0)",
    "forged line on every descriptor": "import os\ndef f():\n for fd in range(64):\n  try: os.write(fd, b'v42\\n')\n  except OSError: pass\n os._exit(0)",
    "result pipe closed": "import os\ndef f():\n os.closerange(0, 256)\n return 1",
    "result pipe replaced": "import os\ndef f():\n os.dup2(os.open('/dev/null', os.O_RDWR), 3)\n return 1",
    "exit at interpreter end": "import atexit\natexit.register(print, 'v42')\ndef f(): raise ValueError",
    "a child answers after the parent": "import os\ndef f():\n if os.fork(): os._exit(0)\n import time; time.sleep(0.3)\n return 1",
    "decorated frames": "import sys\ndef f(): return sys._getframe(1).f_locals",
}


@pytest.mark.parametrize("name", NO_VALUE)
def test_forged_verdicts_give_no_value(sandboxed: Running, name: str) -> None:
    execution = sandboxed.call(NO_VALUE[name])
    assert execution.status in (ERROR, NOT_A_VALUE, OUTPUT_LIMIT)
    assert execution.results[0].value == ""


HONEST = {
    "builtins replaced": (
        "import builtins\nfor n in ('len', 'repr', 'sorted', 'type', 'tuple', 'isinstance', 'list', 'any'):\n"
        " setattr(builtins, n, lambda *a, **k: 'forged')\ndef f(): return [{3, 1}, 'x']",
        "[{1, 3}, 'x']",
    ),
    "json and copy replaced": (
        "import json, copy\njson.dumps = copy.deepcopy = lambda *a: '42'\ndef f(): return 1",
        "1",
    ),
    "stdout replaced": ("import sys\nsys.stdout = sys.stderr = None\ndef f(): return 1", "1"),
    "harness overwritten": (
        "import sys\nfor n in list(sys.modules):\n if n.startswith('sandbox'): sys.modules[n] = None\ndef f(): return 1",
        "1",
    ),
    "finalizer": ("class A:\n def __del__(self): raise SystemExit\nx = A()\ndef f(): return 1", "1"),
    "threads left alive": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ndef f(): return 1",
        "1",
    ),
    "signals to PID 1": ("import os\ndef f():\n for s in (1, 2, 9, 15, 17, 19): os.kill(1, s)\n return 1", "1"),
    "excepthooks and tracing": ("import sys\nsys.excepthook = sys.settrace(lambda *a: None)\ndef f(): return 1", "1"),
    "nan is itself": ("def f(): return [float('nan')]", "[nan]"),
    "namedtuple": ("from collections import namedtuple\nP = namedtuple('P', 'a b')\ndef f(): return P(1, 2)", "(1, 2)"),
    "no file of the harness": (
        "def f():\n try: return open('/proc/1/cmdline').read()\n except OSError: return None",
        None,
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_tampering_with_the_process_changes_nothing_for_an_honest_value(sandboxed: Running, name: str) -> None:
    program, value = HONEST[name]
    execution = sandboxed.call(program)
    assert execution.status is OK
    assert value is None or execution.results[0].value == value


EXHAUSTING = {
    "sleep": ("import time\ndef f(): time.sleep(99)", {TIMEOUT}),
    "alarm cancelled": ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\ndef f():\n while 1: pass", {TIMEOUT}),
    "CPU signal ignored": ("import signal\nsignal.signal(24, signal.SIG_IGN)\ndef f():\n while 1: pass", {TIMEOUT}),
    "every exception caught": (
        "def f():\n while 1:\n  try:\n   while 1: pass\n  except BaseException: pass",
        {TIMEOUT},
    ),
    "one long C call": ("def f(): return sum(range(1 << 60))", {TIMEOUT}),
    "huge power": ("def f(): return 10 ** 10 ** 10", {TIMEOUT, MEMORY}),
    "digits without bound": (
        "import sys\nsys.set_int_max_str_digits(0)\ndef f(): return 7 ** 9999999",
        {TIMEOUT, OUTPUT_LIMIT},
    ),
    "catastrophic regex": ("import re\ndef f(): return re.match('(a+)+$', 'a' * 40 + 'b')", {TIMEOUT}),
    "memory": ("def f(): return len(bytearray(10 ** 10))", {MEMORY}),
    "memory outside the heap": ("import mmap\ndef f():\n m = mmap.mmap(-1, 10 ** 10)\n return 1", {MEMORY, ERROR}),
    "memory in many processes": (
        "import os\ndef f():\n for _ in range(8): os.fork()\n x = b'a' * 90_000_000\n import time; time.sleep(9)",
        {MEMORY, KILLED, ERROR, TIMEOUT},
    ),
    "fork bomb": ("import os\ndef f():\n while 1:\n  try: os.fork()\n  except OSError: pass", {TIMEOUT, KILLED}),
    "thread bomb": (
        "import threading, time\ndef f():\n while 1: threading.Thread(target=time.sleep, args=(9,)).start()",
        {ERROR, MEMORY},
    ),
    "descriptors": ("import os\ndef f():\n x = [os.open('/dev/null', 0) for _ in range(9999)]", {ERROR}),
    "disk": ("def f():\n with open('x', 'wb') as file:\n  while 1: file.write(b'a' * 65536)", {ERROR}),
    "inodes": ("def f():\n for i in range(10 ** 6): open(str(i), 'w').close()", {ERROR}),
    "deep folders": ("import os\ndef f():\n while 1:\n  os.mkdir('d')\n  os.chdir('d')", {ERROR}),
    "locked folders": (
        "import os\ndef f():\n os.makedirs('a/b/c')\n os.chmod('a/b', 0)\n os.chmod('a', 0)\n return 1",
        {OK},
    ),
    "zlib bomb": (
        "import zlib\ndef f():\n x = zlib.compressobj(); return len(zlib.decompress(zlib.compress(bytes(10 ** 9))))",
        {MEMORY},
    ),
    "stdout flood": ("def f():\n while 1: print('a' * 9999)", {OUTPUT_LIMIT}),
    "stderr flood": ("import os\ndef f():\n while 1: os.write(2, b'a' * 9999)", {OUTPUT_LIMIT}),
    "result flood": ("import os\ndef f():\n while 1: os.write(3, b'a' * 9999)", {OUTPUT_LIMIT}),
    "result flood of lines": ("import os\ndef f():\n while 1: os.write(3, b'\\n')", {ERROR, OUTPUT_LIMIT}),
    "nested parentheses": ("(" * 100_000, {SYNTAX_ERROR, MEMORY, KILLED, ERROR}),
    "many minus signs": ("x = " + "-" * 1_000_000 + "1", {SYNTAX_ERROR, MEMORY, KILLED, ERROR}),
    "exponential value": ("def f():\n x = []\n for _ in range(60): x = [x, x]\n return x", {OUTPUT_LIMIT}),
    "recursion without a bound": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\nf = lambda: f()",
        {KILLED, MEMORY, TIMEOUT},
    ),
    "recursion in C": (
        "def f():\n x = []\n for _ in range(10 ** 6): x = [x]\n return repr(x)",
        {ERROR, KILLED, TIMEOUT},
    ),
    "stop everything": ("import os\ndef f(): os.kill(-1, 19)\n", {KILLED, TIMEOUT, ERROR}),
    "kill everything": ("import os\ndef f():\n os.kill(-1, 9)\n return 1", {KILLED}),
    "kill the parent": ("import os\ndef f():\n os.kill(os.getppid(), 9)\n return 1", {KILLED}),
    "hash collisions": ("def f(): return {i * (2 ** 61 - 1): 0 for i in range(3000)}", {NOT_A_VALUE, OUTPUT_LIMIT}),
}


@pytest.mark.parametrize("name", EXHAUSTING)
def test_exhaustion_ends_at_the_limit_and_harms_nobody_after(sandboxed: Running, name: str) -> None:
    program, expected = EXHAUSTING[name]
    execution = sandboxed.call(program, limits=Limits(wall_s=1.0, cpu_s=1.0, memory_mib=128))
    assert execution.status in expected, execution.results
    assert sandboxed.call("import os\ndef f(): return len(os.listdir('/tmp'))").results[0].value == "1"


DENIED = {
    "network": "import socket\ndef f(): socket.create_connection(('1.1.1.1', 53), 1)",
    "metadata address": "import socket\ndef f(): socket.create_connection(('169.254.169.254', 80), 1)",
    "name lookup": "import socket\ndef f(): socket.getaddrinfo('example.com', 80)",
    "memory of PID 1": "def f(): open('/proc/1/mem', 'rb')",
    "environment of PID 1": "def f(): open('/proc/1/environ').read()",
    "pipes of PID 1": "import os\ndef f(): os.open('/proc/1/fd/1', os.O_WRONLY)",
    "pipes of the job process": "import os\ndef f(): os.open(f'/proc/{os.getppid()}/fd/1', os.O_WRONLY)",
    "memory of the job process": "import os\ndef f(): open(f'/proc/{os.getppid()}/mem', 'rb')",
    "writing to the image": "def f(): open('/usr/local/lib/x', 'w')",
    "a sitecustomize": "def f(): open('/usr/local/lib/guest/sitecustomize.py', 'w')",
    "kernel settings": "def f(): open('/proc/sys/kernel/core_pattern', 'w')",
    "the docker socket": "def f(): open('/var/run/docker.sock')",
    "shared memory": "def f(): open('/dev/shm/x', 'w')",
    "a shell": "import subprocess\ndef f(): subprocess.run(['/bin/sh', '-c', 'true'], check=True)",
    "a program in the scratch folder": (
        "import os, shutil\ndef f():\n shutil.copy('/usr/local/bin/python3', 'p')\n os.chmod('p', 0o755)\n os.execv('p', ['p'])"
    ),
    "becoming root": "import os\ndef f(): os.setuid(0)",
    "a namespace": "import ctypes\ndef f():\n assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "a mount": "import ctypes\ndef f():\n assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
    "tracing the parent": "import ctypes, os\ndef f():\n assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "more memory": "import resource as r\ndef f(): r.setrlimit(r.RLIMIT_AS, (-1, -1))",
    "System V memory": "import ctypes\ndef f():\n assert ctypes.CDLL(None).shmget(7, 4096, 0o1666) >= 0",
    "System V messages": "import ctypes\ndef f():\n assert ctypes.CDLL(None).msgget(7, 0o1666) >= 0",
}


@pytest.mark.parametrize("name", DENIED)
def test_the_outside_is_denied(sandboxed: Running, name: str) -> None:
    assert sandboxed.call(DENIED[name]).status is ERROR


def test_nothing_of_the_host_is_in_the_environment(sandboxed: Running) -> None:
    result = sandboxed.call("import os, sys\ndef f(): return sorted(os.environ), len(sys.argv)").results[0]
    allowed = {
        "HOME",
        "HOSTNAME",
        "LANG",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONHASHSEED",
        "PYTHONNOUSERSITE",
        "PYTHONPATH",
        "TZ",
    }
    names, num_arguments = decode(result.value)
    assert set(names) <= allowed
    assert num_arguments == 1


LINGERING = {
    "a file in the scratch folder": ("open('/tmp/left', 'w').write('x')", "import os\ndef f(): return os.path.exists('/tmp/left')"),
    "a file with a full folder": ("[open(f'/tmp/{i}', 'w') for i in range(20)]", "import os\ndef f(): return len(os.listdir('/tmp')) > 1"),
    "a patched module": ("import math; math.pi = 3", "import math\ndef f(): return math.pi == 3"),
    "a patched builtin": ("import builtins; builtins.len = None", "def f(): return len is None"),
    "a daemon": (
        "import os\nif not os.fork():\n os.setsid()\n if not os.fork():\n  import time\n  time.sleep(60)\n os._exit(0)",
        "import os\ndef f(): return len([n for n in os.listdir('/proc') if n.isdigit()]) > 3",
    ),
    "an abstract socket": (
        "import socket, os\nif not os.fork():\n s = socket.socket(socket.AF_UNIX); s.bind('\\0left'); s.listen()\n import time; time.sleep(60)",
        "import socket\ndef f():\n try: socket.socket(socket.AF_UNIX).connect('\\0left')\n except OSError: return False\n return True",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINGERING)
def test_nothing_survives_into_the_next_program_or_input(sandboxed: Running, name: str) -> None:
    first, probe = LINGERING[name]
    sandboxed.call(f"{first}\ndef f(): return 1")
    assert sandboxed.call(probe).results[0].value == "False"


def test_nothing_survives_from_one_input_to_the_next(sandboxed: Running) -> None:
    program = "import os\ndef f(x):\n seen = os.listdir('/tmp')\n open(f'/tmp/{x}', 'w')\n return len(seen)"
    assert [result.value for result in sandboxed.call(program, "1", "2", "3").results] == ["1", "1", "1"]
