"""Hosts of one network: namespaces of this machine's kernel, each with an address of its own, joined by a bridge.

    with hosts(3) as (gateway, names): run(["ip", "netns", "exec", names[0], ...])

Needs root and iproute2; without them the test that asks is skipped, and says so.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest


@contextmanager
def hosts(count: int) -> Iterator[tuple[str, list[str]]]:
    """(address of this machine as they see it, names of the namespaces); all is removed at the end."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("hosts of their own need root and iproute2")
    tag = secrets.token_hex(3)  # the kernel takes a moment to let go of those before
    net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
    names = [f"trt-{tag}-{number}" for number in range(count)]
    try:
        try:
            _ip("link", "add", f"tb{tag}", "type", "bridge")
            _ip("addr", "add", f"{net}.1/24", "dev", f"tb{tag}")
            _ip("link", "set", f"tb{tag}", "up")
            for number, name in enumerate(names):
                outer, inner = ends(name)
                _ip("netns", "add", name)
                _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
                _ip("link", "set", inner, "netns", name)
                _ip("link", "set", outer, "master", f"tb{tag}", "up")
                _ip("-n", name, "addr", "add", f"{net}.{number + 2}/24", "dev", inner)
                _ip("-n", name, "link", "set", inner, "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine gives no network namespaces: {error.stderr.strip()}")
        yield f"{net}.1", names
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", f"tb{tag}")


def ends(name: str) -> tuple[str, str]:
    """The interfaces of the cable to the host `name`: this machine's end, and its own."""
    _, tag, number = name.split("-")
    return f"tv{tag}{number}", f"tw{tag}{number}"


def inside(name: str, *words: object) -> list[str]:
    """The words that run a command on the host `name`."""
    return ["ip", "netns", "exec", name, *map(str, words)]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
