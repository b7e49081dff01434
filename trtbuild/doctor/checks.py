"""What a check is, and what a config wants of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "warning", "unneeded"]
#: Family of a distribution -> the commands that fix a problem; "" stands for every other family.
Mends = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Examined:
    """One thing that was checked. `mend` are the commands that fix it, in order; if empty, `words` say what to do."""

    name: str
    state: State
    words: str
    required: bool = False
    mend: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """A build with this config cannot work before it is mended."""
        return self.required and self.state == "missing"


@dataclass(frozen=True)
class Needs:
    """What a config wants. `cuda` is the CUDA release that the compiler's image or wheels are made for."""

    compiler: str
    gpu: bool  # a build runs on the GPU
    container: bool
    engine: str = "auto"
    gpus: str = "auto"  # executor.gpus
    image: str | None = None
    engine_flags: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    cuda: str | None = None
    cxx: bool = False  # a step starts a C++ compiler
    hub: bool = False  # the checkpoint is on the Hugging Face Hub
    model_bytes: int | None = None


def judged(name: str, good: bool, words: str, *, required: bool, mend: Sequence[str] = ()) -> Examined:
    """ok, or else missing where it is required and a warning where it is not."""
    if good:
        return Examined(name, "ok", words, required)
    return Examined(name, "missing" if required else "warning", words, required, tuple(mend))


def chosen(mends: Mends, family: str) -> tuple[str, ...]:
    """The commands for this family of distributions."""
    return tuple(mends.get(family, mends.get("", ())))
