"""Opens a regular file of a checkpoint, and nothing else: a FIFO waits for a writer, and /dev/zero never ends."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path


def opened(path: Path) -> io.FileIO:
    """The regular file at `path`, links followed, opened for reading. Raises OSError, also for any other file."""
    # Without O_NONBLOCK the open itself would wait for the other end of a FIFO.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return io.FileIO(fd)
