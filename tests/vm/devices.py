"""Block devices that fail: with blocks that cannot be read, and with what a power cut leaves."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096
SECTORS = BLOCK // 512
_FIBMAP = 1
_LOG = struct.Struct("<3QI")  # of dm-log-writes: magic, version, entries, bytes of a sector
_ENTRY = struct.Struct("<4Q")  # sector, sectors, flags, bytes of what follows
_MAGIC = 0x6A736677736872
_DISCARD = 4


def run(*words: object) -> str:
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def attached(image: Path) -> Iterator[str]:
    """The file `image` as a device."""
    device = run("losetup", "--find", "--show", image)
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def make(image: Path, megabytes: int = 48) -> None:
    """An empty ext4."""
    image.touch()
    os.truncate(image, megabytes << 20)
    run("mkfs.ext4", "-q", "-O", "verity", "-b", BLOCK, image)


def copy(image: Path, target: Path) -> None:
    run("cp", "--sparse=always", image, target)


@contextmanager
def mounted(image: Path, place: Path, bad: Sequence[int] = ()) -> Iterator[None]:
    """The ext4 in `image`, of which the blocks `bad` can be neither read nor written."""
    with attached(image) as device:
        run("dmsetup", "create", "spoiled", "--noudevsync", "--table", _table(image, device, bad))
        run("mount", "-t", "ext4", "/dev/mapper/spoiled", place)
        try:
            yield
        finally:
            run("umount", place)
            run("dmsetup", "remove", "spoiled")


def _table(image: Path, device: str, bad: Sequence[int]) -> str:
    lines, at = [], 0
    for start in sorted(block * SECTORS for block in bad):
        if start > at:
            lines.append(f"{at} {start - at} linear {device} {at}")
        lines.append(f"{start} {SECTORS} error")
        at = start + SECTORS
    return "\n".join([*lines, f"{at} {image.stat().st_size // 512 - at} linear {device} {at}"])


def blocks(path: Path) -> list[int]:
    """Where the bytes of a file lie on its device."""
    run("sync")
    fd = os.open(path, os.O_RDONLY)
    try:
        count = -(-os.fstat(fd).st_size // BLOCK)
        return [_block(fd, at) for at in range(count)]
    finally:
        os.close(fd)


def _block(fd: int, at: int) -> int:
    found = bytearray(struct.pack("i", at))
    fcntl.ioctl(fd, _FIBMAP, found)
    return int.from_bytes(found, "little")


@contextmanager
def recorded(image: Path, log: Path, place: Path) -> Iterator[None]:
    """The ext4 in `image`, mounted at `place`; every write to it, in its order, is in `log` afterwards."""
    with attached(image) as device, attached(log) as second:
        table = f"0 {image.stat().st_size // 512} log-writes {device} {second}"
        run("dmsetup", "create", "recorded", "--noudevsync", "--table", table)
        run("mount", "-t", "ext4", "/dev/mapper/recorded", place)
        try:
            yield
        finally:
            run("umount", place)
            run("dmsetup", "remove", "recorded")


def mark(text: str) -> None:
    """Say in the log that this was reached."""
    run("dmsetup", "message", "recorded", 0, "mark", text)


@dataclass(frozen=True)
class Write:
    """One write: where it goes and what it says. A mark has no bytes, and a text."""

    offset: int
    data: bytes
    mark: str = ""


def writes(log: Path) -> list[Write]:
    """What dm-log-writes wrote down."""
    found = []
    with log.open("rb") as file:
        magic, _, count, sector = _LOG.unpack(file.read(_LOG.size))
        assert magic == _MAGIC
        at = sector
        for _ in range(count):
            file.seek(at)
            where, sectors, flags, length = _ENTRY.unpack(file.read(_ENTRY.size))
            text = file.read(length).decode() if length else ""
            at += sector
            if flags & _DISCARD:
                found.append(Write(where * 512, bytes(sectors * 512)))
                continue
            file.seek(at)
            found.append(Write(where * 512, file.read(sectors * 512), text))
            at += -(-sectors * 512 // sector) * sector
    return found


def replay(image: Path, done: Sequence[Write], target: Path) -> None:
    """The file `target` as `image` after these writes and no other."""
    copy(image, target)
    with target.open("r+b") as file:
        for write in done:
            file.seek(write.offset)
            file.write(write.data)
