"""Makes every system call that an ordinary program may need. A test forbids one call at a time and sees this fail."""

import asyncio
import ctypes
import fcntl
import mmap
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TINY_S = 0.0001


def folders_and_files() -> None:
    Path("a/b").mkdir(parents=True)
    Path("a/x").write_text("hello" * 5000)
    Path("a/x").rename("a/y")
    Path("a/y").chmod(0o600)
    os.utime("a/y")
    os.truncate("a/y", 10)
    os.access("a/y", os.R_OK)
    os.access("a/y", os.R_OK, effective_ids=True)
    os.umask(0o22)
    os.statvfs(".")
    shutil.copytree("a", "c")
    shutil.rmtree("c")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile():
        assert not list(Path(folder).iterdir())
    with Path("mapped").open("w+b") as file:
        file.truncate(8192)
        mapped = mmap.mmap(file.fileno(), 8192)
        mapped.flush()
        mapped.resize(4096)
        mapped.madvise(mmap.MADV_DONTNEED)
        mapped.close()
    os.chdir("a")
    Path("y").unlink()
    Path("b").rmdir()


def descriptors() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_inheritable(read, True)
    os.dup2(os.dup(read), 20)
    os.dup2(read, 21, inheritable=False)
    fcntl.fcntl(read, fcntl.F_GETFL)
    file = os.open("q", os.O_RDWR | os.O_CREAT)
    os.pwrite(file, b"abc", 0)
    os.pread(file, 2, 0)
    os.lseek(file, 0, 0)
    os.writev(file, [b"a", b"b"])
    os.readv(file, [bytearray(2)])
    os.fsync(file)
    os.fdatasync(file)
    os.ftruncate(file, 1)
    os.fchmod(file, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX)
    os.sendfile(write, file, 0, 1)
    os.copy_file_range(file, os.open("p", os.O_RDWR | os.O_CREAT), 1, 0)
    select.select([read], [], [], 0)
    poller = select.poll()
    poller.register(read)
    poller.poll(0)
    os.fchdir(os.open(".", os.O_RDONLY))
    sys.stdin.isatty()
    shutil.get_terminal_size()
    os.closerange(20, 30)


def threads_and_processes() -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(abs, [1, -2])) == [1, 2]
    threading.Event().wait(TINY_S)
    signal.pthread_kill(threading.get_ident(), 0)
    done = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True)
    assert done.stdout == b"1\n"
    assert os.waitpid(forked(), 0)[1] == 0
    ended = os.waitid(os.P_PID, forked(), os.WEXITED)
    assert ended
    assert ended.si_status == 0
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)


def forked() -> int:
    child = os.fork()
    if child == 0:
        os.setsid()
        os._exit(0)
    return child


def local_sockets() -> None:
    async def wait() -> list[int]:
        return await asyncio.gather(*[asyncio.sleep(TINY_S, number) for number in range(3)])

    assert asyncio.run(wait()) == [0, 1, 2]
    left, right = socket.socketpair()
    left.send(b"x")
    assert right.recv(1) == b"x"


def on_alarm(*arguments: object) -> None:
    assert arguments[0] == signal.SIGALRM


def signals() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, on_alarm)
    signal.raise_signal(signal.SIGALRM)
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.setitimer(signal.ITIMER_REAL, 9)
    signal.getitimer(signal.ITIMER_REAL)
    signal.alarm(0)
    signal.sigpending()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    signal.sigtimedwait({signal.SIGUSR2}, TINY_S)


def measures() -> None:
    for ask in (os.getuid, os.geteuid, os.getgid, os.getegid, os.getgroups, os.getpgrp, os.getresuid, os.getresgid):
        ask()
    for ask in (os.getpid, os.getppid, os.uname, os.times, os.getcwd, os.sched_yield, threading.get_native_id):
        ask()
    os.getpgid(0)
    os.getsid(0)
    os.getpriority(os.PRIO_PROCESS, 0)
    os.sched_getaffinity(0)
    os.getrandom(4)
    os.sysconf("SC_PHYS_PAGES")
    resource.getrusage(resource.RUSAGE_SELF)
    resource.getrlimit(resource.RLIMIT_CORE)
    time.sleep(TINY_S)
    time.process_time()


if __name__ == "__main__":
    for use in (folders_and_files, descriptors, threads_and_processes, local_sockets, signals, measures):
        use()
    os.close(0)
