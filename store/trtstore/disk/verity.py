"""fs-verity: the kernel makes a file read-only for ever, and checks its bytes as they come from the disk.

Where kernel, file system or file cannot, nothing happens, and one refused call a process is all that it costs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

_ENABLE = 0x40806685  # FS_IOC_ENABLE_VERITY
_MEASURE = 0xC0046686  # FS_IOC_MEASURE_VERITY
_ASKED = struct.Struct("=4I Q 2I Q 11Q")  # struct fsverity_enable_arg
_HEAD = struct.Struct("=2H")  # struct fsverity_digest: algorithm, bytes
_VERSION, _SHA256, _BLOCK = 1, 1, 4096
_MOST = 64  # bytes of a digest, of whatever algorithm
_NEVER = {errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}

_without: set[int] = set()  # devices that have refused


def enable(path: Path) -> bool:
    """Whether the file `path` is kept from now on. What has it open for writing, or may not be written to, is not.

    A process that is killed meanwhile leaves the file as it was. The bytes are brought to the disk; that the file is
    kept is so after an fsync.
    """
    try:
        fd = _opened(path)
    except OSError:
        return False
    try:
        device = os.fstat(fd).st_dev
        if device in _without:
            return False
        try:
            fcntl.ioctl(fd, _ENABLE, _ASKED.pack(_VERSION, _SHA256, _BLOCK, 0, 0, 0, 0, 0, *[0] * 11))
        except OSError as error:
            if error.errno in _NEVER:
                _without.add(device)
            return error.errno == errno.EEXIST
        return True
    finally:
        os.close(fd)


def measured(path: str | Path, status: os.stat_result) -> str | None:
    """The digest by which the kernel checks the bytes of `path`; None where it does not, or the file is not that of
    `status`. It says all of the bytes, and reads none."""
    if status.st_dev in _without:
        return None
    try:
        fd = _opened(path)
    except OSError:
        return None
    try:
        if not os.path.samestat(os.fstat(fd), status):
            return None
        answer = bytearray(_HEAD.pack(0, _MOST) + bytes(_MOST))
        try:
            fcntl.ioctl(fd, _MEASURE, answer)
        except OSError as error:
            if error.errno in _NEVER:
                _without.add(status.st_dev)
            return None
    finally:
        os.close(fd)
    algorithm, count = _HEAD.unpack_from(answer)
    return f"{algorithm}:{answer[_HEAD.size : _HEAD.size + count].hex()}"


def _opened(path: str | Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
