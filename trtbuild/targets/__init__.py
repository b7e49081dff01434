"""The hardware that an engine is built for: detected, or named from the catalogue in `conf/target`."""

from trtbuild.targets.asked import Asked, Fleet
from trtbuild.targets.cpu import level_runs
from trtbuild.targets.facts import (
    CUDA_FACTS,
    Arch,
    DriverPolicy,
    Gpu,
    Kind,
    Target,
    driver_fact,
    gpu_facts,
)
from trtbuild.targets.match import at_hand, gpu_slots, gpus_here, kinds_here, resolve
from trtbuild.targets.normal import sku_name

__all__ = [
    "CUDA_FACTS",
    "Arch",
    "Asked",
    "DriverPolicy",
    "Fleet",
    "Gpu",
    "Kind",
    "Target",
    "at_hand",
    "driver_fact",
    "gpu_facts",
    "gpu_slots",
    "gpus_here",
    "kinds_here",
    "level_runs",
    "resolve",
    "sku_name",
]
