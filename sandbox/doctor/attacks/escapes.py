# ruff: noqa: E501  (one case per line)
"""Family E: escapes. Each returns `reached` if it succeeded; a refusal shows as an error or a signal."""

from __future__ import annotations

from sandbox.doctor.attacks.cases import ANY_RUN, DENIED, VALUELESS, Case, Goal
from sandbox.types import Status

LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef did(number, *arguments):\n assert libc.syscall(number, *arguments) >= 0, os.strerror(ctypes.get_errno())\n return 'reached'\n"
"""System calls by their x86-64 numbers, because Python has no name for most of them."""
OWN = "open('@FOLDER@/owned', 'w').write('owned')"
"""What an attacker would do on the host; `Decoys.harm` looks for this file."""


def _reach(number: int, name: str, program: str) -> Case:
    return Case(number, name, "E", program, Goal.REACH, DENIED)


def _payload(number: int, name: str, program: str) -> Case:
    """A payload that only harms a host that trusts what comes back."""
    return Case(number, name, "E", program, Goal.REACH, VALUELESS | {Status.OK, Status.KILLED})


def _call(number: int, name: str, system_call: str) -> Case:
    return _reach(number, name, f"{LIBC}def f(): return did({system_call})")


INTERPRETER = (
    _reach(95, "a shell through subclasses", "import subprocess\ndef f():\n popen = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0]\n assert popen(['/bin/sh', '-c', 'true']).wait() == 0\n return 'reached'"),
    _reach(95, "a shell", "import subprocess\ndef f():\n subprocess.run(['/bin/sh', '-c', 'true'], check=True)\n return 'reached'"),
    _reach(95, "os.system", "import os\ndef f():\n assert os.system('true') == 0\n return 'reached'"),
    _reach(95, "writing outside", f"def f():\n {OWN}\n return 'reached'"),
    _reach(95, "listing the home of root", "import os\ndef f():\n assert os.listdir('/root') is not None\n return 'reached'"),
    _reach(95, "writing to the library", "import os\ndef f():\n open(os.__file__, 'a').close()\n return 'reached'"),
    _reach(96, "a foreign library", "import ctypes\ndef f():\n open('x.so', 'wb').write(open('/proc/self/exe', 'rb').read(4096))\n ctypes.CDLL('./x.so')\n return 'reached'"),
    _reach(96, "code in executable memory", "import ctypes, mmap\ndef f():\n m = mmap.mmap(-1, 4096, prot=7)\n m.write(b'\\x48\\x31\\xc0\\x48\\xff\\xc0\\xc3')\n ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()\n " + OWN + "\n return 'reached'"),
    _reach(96, "bytecode beyond the constants", "def f():\n code = (lambda: None).__code__\n evil = code.replace(co_code=bytes([100, 255, 83, 0]) + bytes(len(code.co_code) - 4), co_consts=())\n exec(evil)\n " + OWN + "\n return 'reached'"),
    _reach(97, "fork_exec past the audit", "import _posixsubprocess, os\ndef f():\n r, w = os.pipe()\n pid = _posixsubprocess.fork_exec([b'/bin/true'], (b'/bin/true', b'/usr/bin/true'), True, (w,), None, None, -1, -1, -1, -1, -1, -1, r, w, False, False, 0, None, None, None, -1, None, True)\n assert os.waitpid(pid, 0)[1] == 0\n return 'reached'"),
    _reach(97, "a program in the scratch folder", "import os, shutil, sys\ndef f():\n shutil.copy(sys.executable, 'p')\n os.chmod('p', 0o755)\n pid = os.fork()\n if not pid:\n  try: os.execv('p', ['p', '-c', ''])\n  finally: os._exit(1)\n assert os.waitpid(pid, 0)[1] == 0\n return 'reached'"),
    _payload(98, "a pickle that acts when it is opened", f"class P:\n def __reduce__(self): return exec, (\"{OWN}\",)\nclass A:\n def __eq__(self, o): return P()\n __hash__ = None\ndef f(): return A()"),
    _payload(98, "a text that acts when it is evaluated", f"class A:\n def __eq__(self, o): return \"{OWN}\"\n def __repr__(self): return \"{OWN}\"\n __hash__ = None\ndef f(): return A()"),
    _payload(98, "a value that is written as a call", f"class A(str):\n def __repr__(self): return \"{OWN}\"\ndef f(): return A('x')"),
)  # fmt: skip

NETWORK = (
    _reach(99, "the internet", "import socket\ndef f():\n socket.create_connection(('1.1.1.1', 53), 1)\n return 'reached'"),
    _reach(99, "a datagram", "import socket\ndef f():\n s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n s.sendto(b'x', ('8.8.8.8', 53))\n return 'reached'"),
    _reach(99, "IPv6", "import socket\ndef f():\n socket.create_connection(('2606:4700:4700::1111', 53), 1)\n return 'reached'"),
    _reach(99, "name lookup", "import socket\ndef f():\n socket.getaddrinfo('example.com', 80)\n return 'reached'"),
    _reach(99, "metadata address", "import socket\ndef f():\n socket.create_connection(('169.254.169.254', 80), 1)\n return 'reached'"),
    _reach(99, "the host's loopback", "import socket\ndef f():\n socket.create_connection(('127.0.0.1', @PORT@), 1)\n return 'reached'"),
    _reach(99, "the bridge's gateway", "import socket\ndef f():\n socket.create_connection(('172.17.0.1', @PORT@), 1)\n return 'reached'"),
    _reach(99, "the host's abstract socket", "import socket\ndef f():\n socket.socket(socket.AF_UNIX).connect('\\0@NAME@')\n return 'reached'"),
    _reach(99, "the hypervisor's socket", "import socket\ndef f():\n s = socket.socket(socket.AF_VSOCK)\n s.settimeout(0.3)\n s.connect((2, 22))\n return 'reached'"),
    _reach(99, "raw packets", "import socket\ndef f():\n socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n return 'reached'"),
    _reach(99, "raw internet packets", "import socket\ndef f():\n socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n return 'reached'"),
    _reach(99, "a new interface by netlink", "import socket, struct\ndef f():\n s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n s.settimeout(0.5)\n s.sendto(struct.pack('=IHHII', 32, 16, 0x605, 1, 0) + bytes(16), (0, 0))\n assert struct.unpack('=i', s.recv(999)[16:20])[0] == 0\n return 'reached'"),
    _reach(100, "the engine's socket", "import socket\ndef f():\n for path in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '@FOLDER@/engine.sock'):\n  try: socket.socket(socket.AF_UNIX).connect(path)\n  except FileNotFoundError: continue\n  return 'reached'\n raise OSError"),
    _reach(100, "the host's disk", "import os\ndef f():\n for path in ('/host', '/mnt/host', '/rootfs', '/hostfs', '/dev/sda', '/dev/vda', '/dev/nvme0n1'):\n  if os.path.exists(path): os.close(os.open(path, os.O_RDONLY)); return 'reached'\n raise OSError"),
    _reach(100, "the root behind PID 1", "import os\ndef f():\n assert os.path.exists('/proc/1/root/@FOLDER@/gold.txt')\n return 'reached'"),
    _reach(100, "a service account", "def f():\n open('/var/run/secrets/kubernetes.io/serviceaccount/token').read()\n return 'reached'"),
)  # fmt: skip

KERNEL = (
    _call(101, "a user namespace", "272, 0x10000000"),
    _call(101, "a mount namespace", "272, 0x00020000"),
    _call(101, "a mount", "165, b'x', b'/tmp', b'tmpfs', 0, None"),
    _call(101, "a mount by file descriptor", "430, b'tmpfs', 0"),
    _call(101, "another root", "155, b'/tmp', b'/tmp'"),
    _call(101, "change of root", "161, b'/tmp'"),
    _call(101, "a namespace of another process", "308, os.open('/proc/1/ns/mnt', 0), 0"),
    _reach(101, "a namespace by clone", LIBC + "def f():\n pid = libc.syscall(56, 0x10000011, None, None, None, None)\n if pid == 0: os._exit(0)\n assert pid > 0\n os.waitpid(pid, 0)\n return 'reached'"),
    _reach(102, "becoming root", "import os\ndef f():\n assert os.getuid()\n os.setuid(0)\n return 'reached'"),
    _reach(102, "setuid programs", "import os, stat\ndef f():\n for top in ('/bin', '/sbin', '/usr'):\n  for folder, _, names in os.walk(top):\n   for name in names:\n    if os.lstat(os.path.join(folder, name)).st_mode & (stat.S_ISUID | stat.S_ISGID): return 'reached'\n raise OSError"),
    _reach(102, "a setuid file of one's own", "import os\ndef f():\n open('x', 'w').close()\n os.chown('x', 0, 0)\n return 'reached'"),
    _reach(102, "capabilities", "def f():\n for line in open('/proc/self/status'):\n  if line.startswith(('CapEff', 'CapPrm', 'CapBnd')) and int(line.split()[1], 16): return 'reached'\n raise OSError"),
    _call(102, "a capability of one's own", "126, (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(1 << 21, 1 << 21, 0, 0, 0, 0)"),
    _reach(103, "core pattern", "def f():\n open('/proc/sys/kernel/core_pattern', 'w').write('core')\n return 'reached'"),
    _reach(103, "kernel settings", "def f():\n open('/proc/sys/vm/overcommit_memory', 'w')\n return 'reached'"),
    _reach(103, "magic keys", "def f():\n open('/proc/sysrq-trigger', 'w')\n return 'reached'"),
    _reach(103, "a release agent", "import os\ndef f():\n for folder, _, names in os.walk('/sys/fs/cgroup'):\n  for name in names:\n   if name in ('release_agent', 'cgroup.procs', 'memory.max', 'memory.limit_in_bytes', 'pids.max') and os.access(os.path.join(folder, name), os.W_OK): return 'reached'\n raise OSError"),
    _reach(103, "uevent helper", "def f():\n open('/sys/kernel/uevent_helper', 'w')\n return 'reached'"),
    _reach(104, "cryptography in the kernel", "import socket\ndef f():\n s = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)\n s.bind(('hash', 'sha256'))\n return 'reached'"),
    _call(104, "io_uring", "425, 4, (ctypes.c_char * 120)()"),
    _call(104, "bpf", "321, 0, (ctypes.c_uint32 * 18)(1, 4, 4, 1), 72"),
    _call(104, "perf events", "298, (ctypes.c_uint32 * 28)(1, 112), 0, -1, -1, 0"),
    _call(104, "userfaultfd", "323, 1"),
    _call(104, "keys", "248, b'user', b'azr', b'x', 1, -2"),
    _call(104, "key control", "250, 0, -3, 1"),
    _call(104, "fanotify", "300, 0, 0"),
    _call(104, "file handles", "304, os.open('/', 0), (ctypes.c_uint32 * 4)(8, 1, 2, 0), 0"),
    _call(105, "a kernel module", "175, b'x', 1, b''"),
    _call(105, "another kernel", "246, 0, 0, None, 0"),
    _call(105, "the system's clock", "227, 0, (ctypes.c_long * 2)(1, 0)"),
    _call(105, "another personality", "135, 0x0040000"),
    _call(105, "the host's name", "170, b'owned', 5"),
    _reach(105, "kernel memory", "def f():\n for path in ('/dev/mem', '/dev/kmem', '/proc/kcore', '/dev/kmsg'):\n  try: open(path, 'rb').read(1)\n  except OSError: continue\n  return 'reached'\n raise OSError"),
    _reach(105, "devices of one's own", "import os\ndef f():\n os.mknod('d', 0o60666, os.makedev(8, 0))\n return 'reached'"),
    _reach(105, "writes through a pipe's page", "import os\ndef f():\n fd = os.open(os.__file__, os.O_RDONLY)\n before = os.pread(fd, 16, 0)\n r, w = os.pipe()\n for _ in range(16): os.write(w, bytes(4096)); os.read(r, 4096)\n os.splice(fd, w, 1, offset_src=0)\n os.write(w, b'#owned')\n assert os.pread(fd, 16, 0) != before\n return 'reached'"),
)  # fmt: skip

NEIGHBOURS = (
    _call(106, "tracing the parent", "101, 16, os.getppid(), 0, 0"),
    _call(106, "tracing PID 1", "101, 16, 1, 0, 0"),
    _reach(106, "writing into the parent", LIBC + "class Span(ctypes.Structure): _fields_ = [('start', ctypes.c_void_p), ('length', ctypes.c_size_t)]\ndef f():\n text = ctypes.create_string_buffer(8)\n start = int(next(l for l in open('/proc/self/maps') if 'rw' in l).split('-')[0], 16)\n return did(310, os.getppid(), ctypes.byref(Span(ctypes.addressof(text), 8)), 1, ctypes.byref(Span(start, 8)), 1, 0)"),
    _reach(106, "memory of PID 1", "def f():\n open('/proc/1/mem', 'rb')\n return 'reached'"),
    _reach(106, "memory of the parent", "import os\ndef f():\n open(f'/proc/{os.getppid()}/mem', 'r+b')\n return 'reached'"),
    _reach(106, "pipes of PID 1", "import os\ndef f():\n os.open('/proc/1/fd/1', os.O_WRONLY)\n return 'reached'"),
    _reach(106, "pipes of the parent", "import os\ndef f():\n os.open(f'/proc/{os.getppid()}/fd/1', os.O_WRONLY)\n return 'reached'"),
    _reach(106, "a descriptor of the parent", LIBC + "def f():\n fd = libc.syscall(434, os.getppid(), 0)\n assert fd >= 0\n return did(438, fd, 1, 0)"),
    _reach(106, "limits of the parent", "import os, resource\ndef f():\n resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))\n return 'reached'"),
    _reach(106, "limits of PID 1", "import resource\ndef f():\n resource.prlimit(1, resource.RLIMIT_NOFILE, (1, 1))\n return 'reached'"),
    _reach(107, "keys for the operator's terminal", "import fcntl, os\ndef f():\n for path in ('/dev/tty', '/dev/console', '/dev/pts/0', '/proc/self/fd/0'):\n  try: fcntl.ioctl(os.open(path, os.O_RDWR), 0x5412, b'x')\n  except OSError: continue\n  return 'reached'\n raise OSError"),
    Case(107, "escape sequences for the operator", "E", "def f(): return '\\x1b]0;owned\\x07\\x1b[2J'", Goal.REACH, ANY_RUN),
    _payload(108, "links where the host may write", "import os\ndef f():\n for name in ('result', 'output.txt', 'stdout', '.coverage'): os.symlink('@FOLDER@/owned', name)\n return 1"),
    _payload(108, "a folder that becomes a link", "import os\ndef f():\n here = os.getcwd()\n os.chdir('/')\n os.rmdir(here)\n os.symlink('@FOLDER@', here)\n return 1"),
)  # fmt: skip

CASES = (*INTERPRETER, *NETWORK, *KERNEL, *NEIGHBOURS)
