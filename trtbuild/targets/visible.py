"""CUDA_VISIBLE_DEVICES as CUDA reads it: which GPUs and MIG slices of a machine a process may use.

The rules are those of https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
and, where that is silent (an identifier twice, an ambiguous prefix), what PyTorch found CUDA to do
(https://github.com/pytorch/pytorch/blob/main/torch/cuda/__init__.py, `_parse_visible_devices`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from trtbuild.errors import InputError
from trtbuild.targets.nvml import GpuReport

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"

#: Positions in the list of devices; with the position of one slice, or None for all of the device.
Place: TypeAlias = tuple[int, int | None]


def visible(devices: Sequence[GpuReport], env: Mapping[str, str]) -> tuple[Place, ...]:
    """Which of `devices` a process with the environment `env` sees, in CUDA's order if that is known.

    Not set: all of them; set to nothing or to -1: none. Raises InputError where a number would mean another GPU to
    CUDA than to NVML, and which one cannot be known from here.
    """
    setting = env.get(VARIABLE)
    if setting is None:
        return tuple((at, None) for at in range(len(devices)))
    words = [word.strip() for word in setting.split(",")]
    if words[0].startswith(("GPU-", "MIG-")):
        return _places([_named(devices, word) for word in words])
    chosen = _places([_numbered(devices, word) for word in words])
    subset = 0 < len(chosen) < len(devices)
    if subset and len({device.kind for device in devices}) > 1 and env.get(ORDER) != "PCI_BUS_ID":
        raise InputError(
            f"{VARIABLE}={setting} counts GPUs in CUDA's own order, fastest first, and the GPUs here differ",
            option=f"{VARIABLE}={setting}",
            hint=f"set {ORDER}=PCI_BUS_ID, the order of nvidia-smi, or name the GPU by its UUID (nvidia-smi -L)",
        )
    return chosen


def _places(places: Sequence[Place | None]) -> tuple[Place, ...]:
    """All before the first that is not there; none where one comes twice."""
    until = places.index(None) if None in places else len(places)
    kept = [place for place in places[:until] if place is not None]
    return tuple(kept) if len(set(kept)) == len(kept) else ()


def _numbered(devices: Sequence[GpuReport], word: str) -> Place | None:
    digits = re.match(r"\d{1,9}", word)
    return (int(digits[0]), None) if digits and int(digits[0]) < len(devices) else None


def _named(devices: Sequence[GpuReport], word: str) -> Place | None:
    """The one GPU or slice whose UUID begins with `word`."""
    if word.startswith("GPU-"):
        places: list[Place] = [(at, None) for at, each in enumerate(devices) if each.uuid.startswith(word)]
    else:
        places = [
            (at, nth)
            for at, device in enumerate(devices)
            for nth, each in enumerate(device.slices or ())
            if word.startswith("MIG-") and any(name.startswith(word) for name in each.names)
        ]
    return places[0] if len(places) == 1 else None
