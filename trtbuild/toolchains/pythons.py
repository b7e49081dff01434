"""A Python that a toolchain is installed for: the one that runs trtbuild, or another one that a user names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trtbuild import untrusted
from trtbuild.errors import InputError
from trtbuild.processes import programs
from trtbuild.toolchains import probe

LEAST = (3, 10)  # what workers need: TensorRT 8.6 has wheels for no later one. The command line needs 3.11.


@dataclass(frozen=True)
class Python:
    """`path` is as it was named; `base` is the interpreter below a virtual environment, `abi` as of its extensions."""

    path: str
    base: str
    tag: str  # cp311
    abi: str  # cpython-311-x86_64-linux-gnu
    markers: Mapping[str, str]
    versions: Mapping[str, str]  # of those requested packages that it has

    @property
    def release(self) -> str:
        """3.11.7"""
        return self.markers["python_full_version"]

    @property
    def machine(self) -> str:
        """x86_64"""
        return self.markers["platform_machine"]


def python(path: str | None, names: Iterable[str] = ()) -> Python:
    """The Python at `path`, or with None the current one, for which no process is started. Raises InputError."""
    return _asked(path or sys.executable, tuple(sorted(set(names))))


@cache
def _asked(at: str, asked: tuple[str, ...]) -> Python:
    if at == sys.executable:
        answer = probe.answer(list(asked))
    else:
        try:
            code = Path(probe.__file__).read_text(encoding="utf-8")  # as text: no folder of ours is looked into
            done = subprocess.run(
                programs.python(at, "-c", code, *asked),
                capture_output=True,
                check=True,
                timeout=60,
                text=True,
                cwd="/",
                env=programs.cleaned(),
                stdin=subprocess.DEVNULL,
            )
            answer = untrusted.parse_object(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise InputError(
                f"{at} does not answer as a Python 3.10 or later: {type(error).__name__}",
                option="executor.python",
            ) from None
    try:
        made = Python(path=at, **answer)  # type: ignore[arg-type]  # as `ask` says
        release = tuple(int(part) for part in made.markers["python_version"].split("."))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise InputError(
            f"{at} does not answer as a Python 3.10 or later: it answers something else",
            option="executor.python",
        ) from None
    if release < LEAST:
        raise InputError(
            f"{at} is Python {made.release}, and trtbuild's workers need 3.10 or later",
            option="executor.python",
        )
    return made
