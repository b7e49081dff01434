"""A Python in front of an installed toolchain: a virtual environment (PEP 405) of links, made in no time.

The packages lie in a folder that can be moved and shared, `files/` of an environment; the interpreter is that of this
machine. What joins the two is `pyvenv.cfg`, a link to the interpreter, and a link to each folder of `files/`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

from trtbuild.toolchains.pythons import Python
from trtstore import scratch


def packages_of(files: Path, python: Python) -> Path:
    """Where packages are installed below `files`."""
    return files / "lib" / f"python{python.markers['python_version']}" / "site-packages"


def make(home: Path, files: Path | None, python: Python) -> Path:
    """The interpreter of the new virtual environment `home`, whose packages are those of `files`, or its own.

    Raises OSError.
    """
    (home / "bin").mkdir(parents=True)
    config = f"home = {Path(python.base).parent}\ninclude-system-site-packages = false\nversion = {python.release}\n"
    (home / "pyvenv.cfg").write_text(config, encoding="utf-8")
    if files is None:
        packages_of(home, python).mkdir(parents=True)
    else:
        for inner in files.iterdir():
            # Relative, so that both can be moved together.
            (home / inner.name).symlink_to(os.path.relpath(inner, home))
    (home / "lib64").symlink_to("lib")  # where some systems' Pythons look
    interpreter = home / "bin" / "python"
    interpreter.symlink_to(python.base)
    return interpreter


def name_of(python: Python) -> str:
    """Of a shim: machines that share a store may keep their Pythons at different places."""
    return "python-" + hashlib.sha256(f"{python.base}\n{python.release}".encode()).hexdigest()[:12]


def ensure(local: Path, files: Path, python: Python, spare: Path) -> Path:
    """The interpreter of the shim below `local`, made where it is not there.

    Below `spare`, where the store is only read. Raises OSError.
    """
    place = local / name_of(python)
    if os.access(place / "bin" / "python", os.X_OK):
        return place / "bin" / "python"
    new = local / f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        make(new, files, python)
    except OSError:
        scratch.remove(new)
        return make(spare / place.name, files, python)
    try:
        with suppress(OSError):  # somebody else has just made it
            new.rename(place)
    finally:
        scratch.remove(new)
    return place / "bin" / "python"
