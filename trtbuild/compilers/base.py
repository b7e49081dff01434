"""What a compiler is to trtbuild: a value, with a function that makes its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trtbuild.key import Step
from trtbuild.recipe import Recipe
from trtbuild.targets import Kind


@dataclass(frozen=True)
class Compiler:
    """One compiler, as its module declares it.

    `steps` gives the steps for a recipe, upstream first, and raises InputError for what it cannot make.
    `check` and `generate` are worker modules that load the engine that the last step made.
    """

    name: str
    package: str  # the distribution whose release is `compiler.version`
    extra: str  # of trtbuild, that brings it
    schemes: frozenset[str]  # presets of conf/quant
    kinds: frozenset[Kind]  # of hardware
    steps: Callable[[Recipe], tuple[Step, ...]]
    check: str
    generate: str
    ahead: bool = False  # of time: builds for hardware that need not be there
