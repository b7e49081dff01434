"""Runs one command, and ends all its descendants when it ends, or when the starter of this process ends or is killed.

`python -I -S keeper.py PID COMMAND…`, where PID is the starter's. A signal on a parent's death reaches only children,
and a process group only those who stay in it. So this is a subreaper (prctl(2)): it adopts all orphans below it.
SIGTERM ends the family. The exit status is that of the command; a signal that ended it ends this, too.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PDEATHSIG, _SUBREAPER = 1, 36  # <sys/prctl.h>
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(parent: int, command: list[str]) -> int:
    """Returns the exit code of the command."""
    for each in (*_ENDS, signal.SIGCHLD):
        signal.signal(each, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_ENDS, signal.SIGCHLD))
    _prctl(_SUBREAPER, 1)
    _prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 1  # it died before it could be told of
    own = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, before, own)
    status = None
    while status is None:
        if signal.sigwait((*_ENDS, signal.SIGCHLD)) != signal.SIGCHLD:
            break
        status = _reaped(child)
    _end_all()
    if status is None:
        return 128 + signal.SIGTERM
    if os.WIFSIGNALED(status):
        _die_of(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _become(command: list[str], mask: set[int | signal.Signals], keeper: int) -> None:
    """The child's part."""
    _prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    for each in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvp(command[0], command)  # noqa: S606  # no shell: that is the point
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode())
    os._exit(127)


def _reaped(child: int) -> int | None:
    """The status of `child`, if it is among those that ended."""
    last = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                last = status
    return last


def _end_all() -> None:
    """Kill children until there are none: those of a killed one come to this process, which is their subreaper."""
    while True:
        for pid in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    own = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()]
    except OSError:  # a kernel without it
        listed = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
        return [pid for pid in listed if _parent(pid) == own]


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[1])


def _die_of(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command's own core is enough
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
