"""What the store's tests share: small folders, and other processes that use the same store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from trtstore import Record, Store

KEY = "5e" * 32
OTHER = "0f" * 32
FILES = {"engine.bin": b"engine" * 1000, "sub/config.json": b"{}"}
PREDICATE_TYPE = "https://example.org/build/v1"


def write_files(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def publish(store: Store, folder: Path, key: str = KEY, **more) -> Record:
    facts = {"predicate_type": PREDICATE_TYPE, "predicate": {}, "labels": {}} | more
    return store.publish(key, folder, **facts)


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs `code`; it says what it has to say on standard output."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


def leftovers(root: Path) -> list[str]:
    """What lies in tmp/, and the locks that name a key or a digest: nothing, once all is quiet."""
    base = root / "v1"
    names = [path.name for folder in ("tmp", "locks") if (base / folder).exists() for path in (base / folder).iterdir()]
    return [name for name in names if name not in ("store", "tmp", "turn")]
