# ruff: noqa: E501  (one case per line)
"""Family B: theft of the gold answer from every place where a careless harness might leave it."""

from __future__ import annotations

from sandbox.doctor.attacks.cases import ANY_RUN, DENIED, Case, Goal
from sandbox.types import Status

GOLD = r"gold-[0-9a-f]{16}"
"""What a gold answer looks like; `Decoys` draws a new one every time."""
SEARCH = f"""import re
def gold(text):
 found = re.search('{GOLD[:-4]}' + '{{16}}', text if isinstance(text, str) else repr(text))
 if found: raise Found(found.group())
class Found(BaseException): pass
def f():
 try: look()
 except Found as found: return found.args[0]
 raise LookupError('no gold')
"""
SCAN = """
import ctypes
def scan(skip_ro):
 for line in open('/proc/self/maps'):
  span, mode, *rest = line.split()
  if mode[0] != 'r' or (skip_ro and mode[1] != 'w') or '[v' in line: continue
  start, end = (int(x, 16) for x in span.split('-'))
  if end - start > 1 << 27: continue
  yield start, end
"""


def _steal(number: int, name: str, look: str) -> Case:
    return Case(number, name, "B", SEARCH + look, Goal.STEAL, ANY_RUN | {Status.TIMEOUT, Status.MEMORY})


FRAMES = (
    _steal(36, "frames of the callers", "import sys\ndef look():\n frame = sys._getframe()\n while frame:\n  for part in (frame.f_locals, frame.f_globals, frame.f_code.co_consts): gold(part)\n  frame = frame.f_back"),
    _steal(36, "inspect.stack", "import inspect\ndef look():\n for each in inspect.stack(0):\n  gold(each.frame.f_locals); gold(each.frame.f_code.co_consts)"),
    _steal(37, "frames of a traceback", "def look():\n try: 1 / 0\n except ZeroDivisionError as error: frame = error.__traceback__.tb_frame\n while frame:\n  gold(frame.f_locals); gold(frame.f_code.co_consts)\n  frame = frame.f_back"),
    _steal(38, "all objects", "import gc\ndef look():\n for each in gc.get_objects():\n  if type(each) in (dict, list, tuple):\n   try: texts = [x for x in (each.values() if type(each) is dict else each) if type(x) in (str, bytes)]\n   except Exception: continue\n   if texts: gold(texts)"),
    _steal(38, "referrers of what f is called by", "import gc, sys\ndef look():\n for each in gc.get_referrers(sys._getframe(2).f_code, f): gold(each)"),
    _steal(46, "a generator's frame", "def look():\n def g():\n  frame = own.gi_frame.f_back\n  while frame:\n   gold(frame.f_code.co_consts); gold(frame.f_locals)\n   frame = frame.f_back\n  yield\n own = g()\n next(own)"),
    _steal(46, "a coroutine's frame", "def look():\n async def g():\n  frame = own.cr_frame.f_back\n  while frame:\n   gold(frame.f_code.co_consts); gold(frame.f_locals)\n   frame = frame.f_back\n own = g()\n try: own.send(None)\n except StopIteration: pass"),
    _steal(48, "what the harness holds in its main module", "import sys\ndef look():\n for m in list(sys.modules.values()):\n  if getattr(m, '__name__', '').split('.')[0] in ('__main__', 'sandbox', 'program', 'builtins'): gold(list(vars(m).values()))\n frame = sys._getframe()\n while frame:\n  gold(frame.f_code.co_consts)\n  frame = frame.f_back"),
    Case(49, "a comparison that asks what it is compared with", "B", "class A:\n def __eq__(self, other):\n  self.known = other\n  return other == self.known\n __hash__ = None\ndef f(): return A()", Goal.STEAL, ANY_RUN),
)  # fmt: skip

FILES = (
    _steal(39, "own memory file", SCAN + "def look():\n memory = open('/proc/self/mem', 'rb', 0)\n for start, end in scan(True):\n  memory.seek(start)\n  try: text = memory.read(end - start).decode('latin1')\n  except OSError: continue\n  gold(text)"),
    _steal(39, "own environment file", "def look(): gold(open('/proc/self/environ').read())"),
    _steal(39, "own command line", "def look(): gold(open('/proc/self/cmdline').read())"),
    _steal(40, "the parent's environment", "import os\ndef look(): gold(open(f'/proc/{os.getppid()}/environ').read())"),
    _steal(40, "the parent's memory", "import os\ndef look():\n memory = open(f'/proc/{os.getppid()}/mem', 'rb', 0)\n for line in open(f'/proc/{os.getppid()}/maps'):\n  span, mode, *_ = line.split()\n  start, end = (int(x, 16) for x in span.split('-'))\n  if mode[:2] != 'rw' or end - start > 1 << 27: continue\n  memory.seek(start)\n  gold(memory.read(end - start).decode('latin1'))"),
    _steal(40, "the parent's open files", "import os\ndef look():\n for fd in os.listdir(f'/proc/{os.getppid()}/fd'):\n  path = f'/proc/{os.getppid()}/fd/{fd}'\n  try:\n   if os.path.isfile(path): gold(open(path).read())\n  except OSError: pass"),
    _steal(40, "every process there is", "import os\ndef look():\n for pid in filter(str.isdigit, os.listdir('/proc')):\n  for name in ('environ', 'cmdline'):\n   try: gold(open(f'/proc/{pid}/{name}').read())\n   except OSError: pass"),
    _steal(41, "environment", "import os\ndef look(): gold(dict(os.environ))"),
    _steal(41, "arguments", "import sys\ndef look(): gold(sys.argv + sys.orig_argv)"),
    _steal(42, "leftover descriptors", "import os\ndef look():\n for fd in range(3, 256):\n  try:\n   os.set_blocking(fd, False)\n   gold(os.pread(fd, 99999, 0).decode('latin1'))\n  except OSError: pass"),
    _steal(43, "a file beside the harness", "def look(): gold(open('@FOLDER@/gold.txt').read())"),
    _steal(43, "files in the temporary folders", "import os\ndef look():\n for top in ('.', '/tmp', '/var/tmp', '/dev/shm', '/root', '/home'):\n  for folder, _, names in os.walk(top):\n   for name in names:\n    try:\n     if os.path.isfile(os.path.join(folder, name)): gold(open(os.path.join(folder, name), errors='replace').read(99999))\n    except OSError: pass"),
    _steal(44, "the harness's source", "import sys, linecache\ndef look():\n for m in list(sys.modules.values()):\n  if getattr(m, '__name__', '').split('.')[0] in ('__main__', 'sandbox'): gold(linecache.getlines(getattr(m, '__file__', None) or ''))\n for lines in list(linecache.cache.values()): gold(lines)"),
    Case(45, "the reward's own file", "B", "def f():\n open('@FOLDER@/reward.txt', 'w').write('1.0')\n return 'reached'", Goal.REACH, DENIED),
    _steal(47, "the heap by ctypes", SCAN + "def look():\n for start, end in scan(True): gold(ctypes.string_at(start, end - start).decode('latin1'))"),
)  # fmt: skip

SIBLINGS = (
    _steal(50, "a sibling's abstract socket", "import socket\ndef look():\n s = socket.socket(socket.AF_UNIX)\n s.connect('\\0@NAME@')\n gold(s.recv(99).decode())"),
    _steal(50, "a sibling's loopback port", "import socket\ndef look(): gold(socket.create_connection(('127.0.0.1', @PORT@), 1).recv(99).decode())"),
    _steal(50, "a sibling's shared memory", "def look(): gold(open('/dev/shm/@NAME@').read())"),
    _steal(50, "a sibling's System V memory", "import ctypes\ndef look():\n libc = ctypes.CDLL(None)\n libc.shmat.restype = ctypes.c_void_p\n address = libc.shmat(libc.shmget(@PORT@, 0, 0), None, 0o10000)\n assert address not in (None, 2 ** 64 - 1)\n gold(ctypes.string_at(address, 64).decode('latin1'))"),
)  # fmt: skip

CASES = (*FRAMES, *FILES, *SIBLINGS)
