"""The hardware that an engine is built for: detected, or named from the catalogue in `conf/target`."""

from trtbuild.targets.facts import (
    Arch,
    DriverPolicy,
    Gpu,
    Kind,
    Target,
    driver_fact,
    gpu_facts,
    sku_name,
)
from trtbuild.targets.match import Asked, at_hand, resolve

__all__ = [
    "Arch",
    "Asked",
    "DriverPolicy",
    "Gpu",
    "Kind",
    "Target",
    "at_hand",
    "driver_fact",
    "gpu_facts",
    "resolve",
    "sku_name",
]
