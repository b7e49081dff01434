"""What a worker starts with: few environment variables, its packages, and the code of this trtbuild."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

import trtbuild
from trtbuild.errors import InputError
from trtbuild.processes import programs

#: The only variables that a worker inherits from the user. None is in a key: they say where tools and devices are, not
#: what is built.
PASSED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
)
CODE = "code"  # a folder with a link to trtbuild's own code


def environment(home: Path, threads: int | None, devices: str | None = None) -> dict[str, str]:
    """A worker's whole environment: allowed variables, and settings that make runs reproducible."""
    env = programs.allowed(PASSED) | {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "LC_ALL": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",  # a step reads what it was given
    }
    if devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = devices
    if threads is not None:
        env |= {"OMP_NUM_THREADS": str(threads), "TRTBUILD_THREADS": str(threads)}
    return env


def packages(python: str, sealed: bool) -> dict[str, str]:
    """Variables that say where a worker finds packages besides those of its interpreter.

    The user's site-packages count only if this Python uses them. They come last, and their `.pth` files and
    usercustomize do not run.
    """
    if sealed:
        return {"PYTHONDONTWRITEBYTECODE": "1"}
    return {programs.MORE: site.getusersitepackages()} if python == sys.executable and site.ENABLE_USER_SITE else {}


def named(names: Sequence[str]) -> dict[str, str]:
    """The variables that a config passes on by name (`executor.env`). Raises InputError if one is not set."""
    for name in names:
        if name not in os.environ:
            raise InputError(f"{name} is not set", option="executor.env", hint=f"export {name}=…, or leave it out")
    return {name: os.environ[name] for name in names}


def start_of(folder: Path) -> Path:
    """The script in `folder` that starts trtbuild's own modules."""
    return folder / CODE / programs.START_IN_CODE


def put_code(folder: Path) -> None:
    """Link this trtbuild into `folder`, for a Python that has none, or another release."""
    code = folder / CODE
    code.mkdir(exist_ok=True)
    link = code / "trtbuild"
    if not link.is_symlink():
        link.symlink_to(Path(trtbuild.__file__).parent)
