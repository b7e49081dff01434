"""Small file systems of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEGABYTES = {"ext4": 64, "xfs": 320, "btrfs": 128}  # little more than the least that mkfs makes


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[None]:
    """A mount at `where`, or a skip that says why there is none."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *options, str(where)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def make_image(kind: str, image: Path, *options: str) -> Path:
    """A small file system of its own in the file `image`, or a skip that says why there is none."""
    mkfs = shutil.which(f"mkfs.{kind}", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if mkfs is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    with image.open("wb") as file:
        file.truncate(MEGABYTES[kind] << 20)
    subprocess.run([mkfs, "-q", *options, image], check=True, capture_output=True)
    return image
