"""The hardware that an engine is built for: detected, or named from the catalogue in `conf/target`."""

from trtbuild.targets.asked import Asked, Fleet
from trtbuild.targets.facts import (
    Arch,
    DriverPolicy,
    Gpu,
    Kind,
    Target,
    driver_fact,
    gpu_facts,
)
from trtbuild.targets.match import at_hand, resolve
from trtbuild.targets.normal import sku_name

__all__ = [
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
    "resolve",
    "sku_name",
]
