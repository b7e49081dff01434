"""What every build wants of a host: a store that takes it, room on the disk, memory, a token for the Hub."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from trtbuild.doctor import mends
from trtbuild.doctor.checks import Examined, Needs, chosen, judged
from trtbuild.doctor.world import World
from trtstore import StoreFailure, format_size

ROOM = 3  # times the checkpoint: what is downloaded, what is made of it, and the engine
LEAST_ROOM = 2_000_000_000  # bytes, where nothing is known of the checkpoint
MEMORY = 2  # times the checkpoint, for tools that hold it twice


def check(needs: Needs, store: Path, world: World, refused: StoreFailure | None = None) -> Iterator[Examined]:
    """The system, the store, disk, memory, the Hub. `refused` is why the store cannot be opened."""
    told = world.system
    yield Examined("system", "ok", f"{told.get('PRETTY_NAME', platform.system())}, {platform.machine()}")
    yield _store(store, refused)
    yield _disk(needs, store)
    if needs.gpu:
        yield from _memory(needs, world)
    if needs.cxx:
        yield _cxx(world)
    if needs.hub:
        yield _hub(world)


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _store(root: Path, refused: StoreFailure | None) -> Examined:
    if refused is not None:
        mend = () if refused.hint is None else (refused.hint,)
        return judged("store", False, refused.message, required=True, mend=mend)
    place = _existing(root)
    good = place.is_dir() and os.access(place, os.R_OK | os.W_OK | os.X_OK)
    words = f"{root} takes engines" if good else f"{root} cannot be written: {place} is not this user's"
    return judged("store", good, words, required=True, mend=(f"sudo chown -R $USER {place}    # or store.root=PATH",))


def _disk(needs: Needs, root: Path) -> Examined:
    free = shutil.disk_usage(_existing(root)).free
    wanted = LEAST_ROOM if needs.model_bytes is None else ROOM * needs.model_bytes
    words = f"{format_size(free)} are free where the store is, and this config takes about {format_size(wanted)}"
    return judged("disk", free >= wanted, words, required=True, mend=("trtstore gc --max-size SIZE",))


def _memory(needs: Needs, world: World) -> Iterator[Examined]:
    lines = (world.text("/proc/meminfo") or "").splitlines()
    told = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    if needs.model_bytes is None or "MemAvailable" not in told:
        return
    free, wanted = int(told["MemAvailable"][0]) * 1024, MEMORY * needs.model_bytes
    words = (
        f"{format_size(free)} of memory are free, and NVIDIA's tools take about {format_size(wanted)} for this "
        "checkpoint"
    )
    yield judged("memory", free >= wanted, words, required=False, mend=("sudo fallocate -l 64G /swapfile    # swap",))


def _cxx(world: World) -> Examined:
    said = world.run(world.env.get("CXX", "g++"), "--version")
    words = said.out.partition("\n")[0] if said.ok else f"a step compiles C++, and {said.why}"
    return judged("compiler", said.ok, words, required=True, mend=chosen(mends.CXX, world.family))


def _hub(world: World) -> Examined:
    home = Path(world.env.get("HF_HOME") or Path(world.env.get("HOME", "/")) / ".cache" / "huggingface")
    there = bool(world.env.get("HF_TOKEN")) or (home / "token").is_file()
    words = "a token is there" if there else "no token: gated models, such as Llama, are refused without one"
    return judged("hub", there, words, required=False, mend=chosen(mends.HUB, world.family))
