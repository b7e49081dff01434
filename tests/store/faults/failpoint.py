"""The library of failpoint.c from Python: how it is made, and what it is told to do at which call."""

from __future__ import annotations

import ctypes
import errno
import shutil
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("failpoint.c")

#: The calls that change something on disk: between two of them a kill finds the same disk.
CHANGING = (
    *("create", "write", "clone", "truncate", "fsync", "rename", "link", "symlink"),
    *("unlink", "rmdir", "mkdir", "chmod", "utime", "flock"),
)
CALLS = (*CHANGING, "open", "read", "opendir", "readdir", "stat")

_FILLS = ("create", "write", "clone", "truncate", "fsync", "rename", "link", "symlink", "mkdir")
#: Which calls can fail in which way; the kernel gives no EMFILE to a write.
REFUSED_BY = {
    errno.ENOSPC: _FILLS,
    errno.EDQUOT: ("create", "write", "mkdir"),
    errno.EACCES: (
        *("create", "open", "opendir", "rename", "link", "symlink", "unlink", "rmdir", "mkdir"),
        *("chmod", "utime", "stat"),
    ),
    errno.EROFS: (*("create", "rename", "link", "symlink", "unlink", "rmdir", "mkdir", "chmod", "utime", "truncate"),),
    errno.EMFILE: ("create", "open", "opendir"),
    errno.ENOLCK: ("flock",),
    errno.EIO: CALLS,
}


class Kind(IntEnum):
    """As in failpoint.c."""

    NEVER = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    REFUSE_ONCE = 3
    REFUSE_FROM_THEN_ON = 4
    HALVE = 5
    TEAR = 6  # the second half of what is read are zeros
    END = 7  # a file seems to end before the read


@dataclass(frozen=True)
class Fault:
    """What befalls the call number `at` of those named `names`."""

    kind: Kind = Kind.NEVER
    at: int = 0
    names: tuple[str, ...] = CALLS
    error: int = 0


def build(target: Path) -> str | None:
    """Compile the library as `target`; returns why that is not possible here, or None."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return "no C compiler: neither cc nor gcc is installed"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run([compiler, *flags, "-o", str(target), str(SOURCE), "-ldl"], capture_output=True, text=True)
    return f"{SOURCE.name} does not compile here: {done.stderr.strip()}" if done.returncode else None


class Library:
    """The library as preloaded into this process."""

    def __init__(self) -> None:
        self._symbols = ctypes.CDLL(None)

    def arm(self, folder: Path, but: Path | None, fault: Fault, log: int) -> None:
        """Count the calls on paths below `folder`, but those below `but`, and write each to the descriptor `log`."""
        names = f",{','.join(fault.names)},"
        self._symbols.failpoint_arm(
            str(folder).encode(),
            str(but or "").encode(),
            names.encode(),
            ctypes.c_int(fault.kind),
            ctypes.c_long(fault.at),
            ctypes.c_int(fault.error),
            ctypes.c_int(log),
        )

    def pause(self) -> None:
        self._symbols.failpoint_pause()

    def resume(self) -> None:
        self._symbols.failpoint_resume()
