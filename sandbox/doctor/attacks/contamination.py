# ruff: noqa: E501  (one case per line)
"""Family F: what one run leaves behind for the next. The probe is a later program that returns True if it finds it."""

from __future__ import annotations

from sandbox.doctor.attacks.cases import ANY_RUN, DENIED, Case, Goal
from sandbox.types import Status


def _linger(number: int, name: str, leaves: str, probe: str) -> Case:
    program = f"{leaves}\ndef f(): return 1"
    expected = ANY_RUN | {Status.TIMEOUT}
    return Case(number, name, "F", program, Goal.LINGER, expected, probe=probe)


CASES = (
    _linger(109, "a file in the scratch folder", "open('/tmp/left', 'w').write('x')", "import os\ndef f(): return os.path.exists('/tmp/left')"),
    _linger(109, "a file in the working folder", "open('left', 'w').write('x')", "import os\ndef f(): return os.path.exists('left')"),
    _linger(109, "many files", "[open(f'/tmp/{i}', 'w') for i in range(20)]", "import os\ndef f(): return len([n for n in os.listdir('/tmp') if n.isdigit()]) > 1"),
    _linger(109, "a file in shared memory", "open('/dev/shm/left', 'w').write('x')", "import os\ndef f(): return os.path.exists('/dev/shm/left')"),
    _linger(109, "a hidden folder that is locked", "import os\nos.makedirs('/tmp/.left/x')\nos.chmod('/tmp/.left', 0)", "import os\ndef f(): return os.path.exists('/tmp/.left')"),
    _linger(109, "System V memory", "import ctypes\nctypes.CDLL(None).shmget(7, 4096, 0o1666)", "import ctypes\ndef f(): return ctypes.CDLL(None).shmget(7, 0, 0) >= 0"),
    _linger(109, "System V messages", "import ctypes\nctypes.CDLL(None).msgget(7, 0o1666)", "import ctypes\ndef f(): return ctypes.CDLL(None).msgget(7, 0) >= 0"),
    _linger(109, "a POSIX queue", "import ctypes\nctypes.CDLL(None).mq_open(b'/left', 66, 0o666, None)", "import ctypes\ndef f(): return ctypes.CDLL(None).mq_open(b'/left', 0) >= 0"),
    _linger(109, "a file mask", "import os\nos.umask(0o777)", "import os\ndef f(): return os.umask(0) == 0o777"),
    _linger(109, "another working folder", "import os\nos.mkdir('/tmp/there')\nos.chdir('/tmp/there')", "import os\ndef f(): return os.getcwd().endswith('there')"),
    _linger(110, "a patched module", "import math; math.pi = 3", "import math\ndef f(): return math.pi == 3"),
    _linger(110, "a patched builtin", "import builtins; builtins.owned = 1", "import builtins\ndef f(): return hasattr(builtins, 'owned')"),
    _linger(110, "a builtin that lies", "import builtins; builtins.sorted = lambda *a: 'owned'", "def f(): return sorted([2, 1]) == 'owned'"),
    _linger(110, "a module of its own", "import sys; sys.modules['owned'] = sys", "import sys\ndef f(): return 'owned' in sys.modules"),
    _linger(110, "the search path", "import sys; sys.path.insert(0, '/tmp/owned')", "import sys\ndef f(): return '/tmp/owned' in sys.path"),
    _linger(110, "the environment", "import os; os.environ['OWNED'] = '1'", "import os\ndef f(): return 'OWNED' in os.environ"),
    _linger(110, "the recursion limit", "import sys; sys.setrecursionlimit(4321)", "import sys\ndef f(): return sys.getrecursionlimit() == 4321"),
    _linger(110, "the decimal context", "import decimal; decimal.getcontext().prec = 3; decimal.DefaultContext.prec = 3", "import decimal\ndef f(): return decimal.getcontext().prec == 3"),
    _linger(110, "a signal's handler", "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)", "import signal\ndef f(): return signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN"),
    _linger(110, "an abstract base class", "import collections.abc as c; c.Sequence.register(int)", "import collections.abc as c\ndef f(): return isinstance(1, c.Sequence)"),
    _linger(111, "a seeded generator", "import random; random.seed(7)", "import random\ndef f(): return random.random() == random.Random(7).random()"),
    Case(111, "the same random numbers again", "F", "import random\ndef f(): return random.random()", Goal.VARY, ANY_RUN),
    _linger(112, "a daemon", "import os, time\nif not os.fork():\n os.setsid()\n if not os.fork(): time.sleep(60)\n os._exit(0)", "import os\ndef f(): return any(open(f'/proc/{n}/stat').read().split(') ')[1].split()[0] == 'S' and open(f'/proc/{n}/wchan').read().find('nanosleep') >= 0 for n in os.listdir('/proc') if n.isdigit() and n != '1')"),
    _linger(112, "an abstract socket", "import socket, os, time\nif not os.fork():\n s = socket.socket(socket.AF_UNIX); s.bind('\\0left'); s.listen(); time.sleep(60)\ntime.sleep(0.1)", "import socket\ndef f():\n try: socket.socket(socket.AF_UNIX).connect('\\0left')\n except OSError: return False\n return True"),
    _linger(112, "a killer of later programs", "import os, time\nif not os.fork():\n os.setsid()\n while 1:\n  for n in range(os.getpid() + 1, os.getpid() + 40):\n   try: os.kill(n, 10)\n   except OSError: pass\n  time.sleep(0.005)", "import signal, time\nhit = []\nsignal.signal(10, lambda *a: hit.append(1))\ndef f():\n time.sleep(0.3)\n return bool(hit)"),
    _linger(113, "a lower priority", "import os; os.nice(7)", "import os\ndef f(): return os.nice(0) == 7"),
    _linger(113, "one processor for all runs", "import os; os.sched_setaffinity(0, {0})", "import os\ndef f(): return os.sched_getaffinity(0) == {0} and os.cpu_count() > 1"),
    _linger(113, "an OOM score", "open('/proc/self/oom_score_adj', 'w').write('777')", "def f(): return open('/proc/self/oom_score_adj').read().strip() == '777'"),
    Case(113, "more memory", "F", "import resource as r\ndef f():\n r.setrlimit(r.RLIMIT_AS, (-1, -1))\n return 'reached'", Goal.REACH, DENIED),
    Case(113, "more processes", "F", "import resource as r\ndef f():\n r.setrlimit(r.RLIMIT_NPROC, (9999, 9999))\n return 'reached'", Goal.REACH, DENIED),
    Case(113, "a higher priority", "F", "import os\ndef f():\n os.nice(-5)\n return 'reached'", Goal.REACH, DENIED),
    Case(113, "real-time scheduling", "F", "import os\ndef f():\n os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))\n return 'reached'", Goal.REACH, DENIED),
)  # fmt: skip
