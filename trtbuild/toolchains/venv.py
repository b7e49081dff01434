"""A Python in front of an installed toolchain: a virtual environment (PEP 405) of links, made in no time.

The packages lie in a folder that can be moved and shared, `files/` of an environment; the interpreter is that of this
machine. What joins the two is `pyvenv.cfg`, a link to the interpreter, and a link to each folder of `files/`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from trtbuild.toolchains.pythons import Python
from trtstore import other_writer, remove_folder

_MAX_CONFIG = 8192  # bytes


def packages_of(files: Path, python: Python) -> Path:
    """Where packages are installed below `files`."""
    return files / "lib" / f"python{python.markers['python_version']}" / "site-packages"


def _config(base: str, release: str) -> str:
    return f"home = {Path(base).parent}\ninclude-system-site-packages = false\nversion = {release}\n"


def make(home: Path, files: Path | None, python: Python) -> Path:
    """The interpreter of the new virtual environment `home`, whose packages are those of `files`, or its own.

    Raises OSError.
    """
    (home / "bin").mkdir(parents=True)
    (home / "pyvenv.cfg").write_text(_config(python.base, python.release), encoding="utf-8")
    if files is None:
        packages_of(home, python).mkdir(parents=True)
    else:
        for inner in files.iterdir():
            # Relative, so that both can be moved together.
            (home / inner.name).symlink_to(os.path.relpath(inner, home))
    (home / "lib64").symlink_to("lib")  # where some systems' Pythons look
    for own in (home, home / "bin", home / "pyvenv.cfg"):
        own.chmod(0o644 if own.suffix else 0o755)  # whatever the umask
    interpreter = home / "bin" / "python"
    interpreter.symlink_to(python.base)
    return interpreter


def name_of(base: str, release: str) -> str:
    """Of a shim: machines that share a store may keep their Pythons at different places."""
    return "python-" + hashlib.sha256(f"{base}\n{release}".encode()).hexdigest()[:12]


def trouble(place: Path, files: Path) -> str | None:
    """What of the shim `place` is not as `make` makes it for the packages in `files`; None where all is.

    Its name says which interpreter it leads to. No other user may write to it. Raises OSError.
    """
    linked = {inner.name: os.path.relpath(inner, place) for inner in files.iterdir()} | {"lib64": "lib"}
    for folder, names in ((place, {*linked, "bin", "pyvenv.cfg"}), (place / "bin", {"python"})):
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or other_writer(status) is not None:
            return f"{folder} is no folder that this user alone may write to"
        if odd := {inner.name for inner in folder.iterdir()} ^ names:
            return f"{folder / min(odd)} is {'not there' if min(odd) in names else 'not of trtbuild'}"
    for name, target in linked.items():
        if not (place / name).is_symlink() or str((place / name).readlink()) != target:
            return f"{place / name} does not lead to {target}"
    interpreter, config = place / "bin" / "python", place / "pyvenv.cfg"
    if not interpreter.is_symlink():
        return f"{interpreter} is not the link to a Python"
    if not stat.S_ISREG(config.lstat().st_mode) or other_writer(config.lstat()) is not None:
        return f"{config} is no file that this user alone may write to"
    base, text = str(interpreter.readlink()), config.read_bytes()[:_MAX_CONFIG].decode(errors="replace")
    release = text.rpartition("version = ")[2].strip()
    if text != _config(base, release) or name_of(base, release) != place.name:
        return f"{place} does not lead to the Python that its name says"
    return None


def ensure(local: Path, files: Path, python: Python, spare: Path) -> Path:
    """The interpreter of the shim below `local`, made where it is not there, or not just as it would be made.

    Below `spare`, where the store is only read. Raises OSError.
    """
    place = local / name_of(python.base, python.release)
    with suppress(OSError):
        if trouble(place, files) is None:
            return place / "bin" / "python"
    if place.is_symlink() or place.exists():
        remove_folder(place)
    new = local / f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        make(new, files, python)
        with suppress(OSError):  # somebody else has just made it
            new.rename(place)
        if trouble(place, files) is None:
            return place / "bin" / "python"
    except OSError:  # it is another's, or read-only
        pass
    finally:
        remove_folder(new)
    return make(spare / place.name, files, python)
