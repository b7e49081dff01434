"""What the groups `target` and `fleet` of a config ask for, and whether it can be meant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trtbuild.errors import InputError
from trtbuild.targets.facts import Arch, Kind, is_class
from trtbuild.targets.normal import mig_memory_gb, sku_name

#: What makes a GPU's identity; the names are those of `Gpu` and of the options.
GPU_FACTS = ("gpu", "memory_gb", "compute_capability", "sm_count")
CUDA_OPTIONS = (*GPU_FACTS, "mig", "gpus", "driver", "cuda", "device")


def identity(compute_capability: str | None) -> tuple[str, ...]:
    """Those of `GPU_FACTS` that make a GPU's identity, or that of a class of GPUs."""
    return ("gpu", "compute_capability") if is_class(compute_capability) else GPU_FACTS


@dataclass(frozen=True)
class Fleet:
    """The driver that a team's machines have: what is taken for a GPU that is not here."""

    name: str = "none"
    driver: str | None = None
    cuda: str | None = None


@dataclass(frozen=True)
class Asked:
    """The group `target` of a config, as the options say it; a file of the catalogue sets what is known of a SKU."""

    name: str
    kind: Kind | None = None
    arch: Arch | None = None
    level: str | None = None
    gpu: str | None = None
    memory_gb: int | None = None
    compute_capability: str | None = None
    sm_count: int | None = None
    mig: str | None = None
    gpus: int | None = None
    driver: str | None = None
    cuda: str | None = None
    device: int | None = None
    fleet: Fleet = Fleet()

    def facts(self) -> dict[str, str | int]:
        """What is asked of the GPU itself, with its name as a key holds it."""
        values = {name: getattr(self, name) for name in (*GPU_FACTS, "mig")}
        if self.gpu is not None:
            values["gpu"] = sku_name(self.gpu)
        return {name: value for name, value in values.items() if value is not None}

    @property
    def complete(self) -> bool:
        """Whether the options give a GPU's whole identity, so that it need not be here."""
        return all(getattr(self, name) is not None for name in identity(self.compute_capability))


_FORMS = {
    "gpu": (r"[\w .+()/-]*\w[\w .+()/-]*", "a GPU's name as nvidia-smi -L says it", "NVIDIA L4"),
    "compute_capability": (r"\d{1,2}\.\d\+?", "a compute capability", "8.9"),
    "mig": (r"(\d+c\.)?\d+g\.\d+gb([.+][\w.+-]+)?", "a MIG profile", "1g.10gb"),
}
_RELEASES = {
    "driver": (r"\d{3,4}(\.\d+){0,3}", "a release of NVIDIA's driver", "580.95.05"),
    "cuda": (r"\d{1,2}\.\d{1,2}", "a CUDA version", "13.0"),
}


def check(asked: Asked) -> None:
    """Raises InputError, naming the dotted option, for the first value that cannot be meant."""
    for name, (form, words, example) in (_FORMS | _RELEASES).items():
        _matches(f"target.{name}", getattr(asked, name), form, words, example)
    for name, (form, words, example) in _RELEASES.items():
        _matches(f"fleet.{name}", getattr(asked.fleet, name), form, words, example)
    for name in ("memory_gb", "sm_count", "gpus"):
        value = getattr(asked, name)
        if value is not None and value <= 0:
            raise InputError(f"{value} is not above 0", option=f"target.{name}")
    if asked.device is not None and asked.device < 0:
        raise InputError(
            f"{asked.device} is no index of a GPU", option="target.device", hint="nvidia-smi -L lists them"
        )
    if asked.mig is not None and asked.memory_gb not in (None, mig_memory_gb(asked.mig)):
        raise InputError(
            f"a slice {asked.mig} has {mig_memory_gb(asked.mig)} GB, and not {asked.memory_gb}",
            option=f"target.memory_gb={asked.memory_gb}",
            hint="with target.mig, target.memory_gb and target.sm_count are those of the slice",
        )


def _matches(option: str, value: str | None, form: str, words: str, example: str) -> None:
    if value is not None and re.fullmatch(form, value, flags=re.ASCII) is None:
        raise InputError(f"{value!r} is not {words}", option=option, hint=f"such as {option}={example!r}")
