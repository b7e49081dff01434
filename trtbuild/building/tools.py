"""Chooses what runs the steps of a config: the current Python, an installed toolchain, or a container."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trtbuild.compilers.registry import COMPILERS
from trtbuild.config import choices, schema
from trtbuild.errors import InputError
from trtbuild.executors import container
from trtbuild.facts.key import IMAGE
from trtbuild.planning.plan import PlannedStep
from trtbuild.toolchains import pythons
from trtbuild.toolchains.environments import ToolchainEnvironments, chosen, holds
from trtbuild.toolchains.lock import Lock
from trtbuild.toolchains.pythons import Python
from trtbuild.worker import matches


@dataclass(frozen=True)
class StepTools:
    """Chooses by `config.executor` and by what is installed. `environments` are those of toolchains in the local store.

    With `exact` the steps are those of a record, and no option may choose other tools.
    """

    config: schema.Config
    environments: ToolchainEnvironments
    exact: bool = False

    @property
    def python(self) -> str:
        return self.config.executor.python or sys.executable

    @contextmanager
    def interpreter(self, lock: Lock | None, home: Path) -> Iterator[tuple[str, bool]]:
        """The Python that runs steps of this toolchain, and whether it belongs to the toolchain's environment.

        The environment is kept while it is used; links to it go below `home`. Raises InputError, StoreFailure.
        """
        if lock is None or not self.managed(lock):
            yield self.python, False
            return
        with self.environments.using(lock, self.here(lock), home) as interpreter:
            yield str(interpreter), True

    def container(self, digest: str) -> container.Container:
        """How to run a container of the image with this digest. Raises InputError."""
        image = str(getattr(self.config.compiler, "image", None))
        if not image.endswith(digest):
            raise InputError(
                f"the step runs in the image {digest[:19]}…, and the config names {image}",
                option="compiler.image",
                hint="name that image where it is: compiler.image=NAME@sha256:…",
            )
        conf = self.config.executor
        return container.Container(
            engine=container.engine(conf.engine.value),
            image=image,
            gpus=conf.gpus.value,
            network=conf.network,
            env=tuple(conf.env),
            engine_flags=tuple(conf.engine_flags),
            flags=tuple(conf.flags),
        )

    def here(self, lock: Lock) -> Python:
        """The current Python with its versions of the toolchain's packages. Raises InputError."""
        return pythons.python(self.config.executor.python, lock.chosen)

    def managed(self, lock: Lock) -> bool:
        """Whether steps of this toolchain run in the toolchain's own environment. Raises InputError."""
        name = self.config.executor.name
        if name in (
            choices.Executor.auto,
            choices.Executor.container,
        ):  # a container has packages without a lock
            return not self.holds(lock)
        return name is choices.Executor.managed

    def holds(self, lock: Lock) -> bool:
        """Whether the current Python has the locked version of every package that results depend on.

        Raises InputError.
        """
        return holds(self.here(lock), lock)

    def versions(self, planned: PlannedStep) -> dict[str, str]:
        """package -> version that the step's worker requires. Raises InputError."""
        lock = planned.step.lock
        if IMAGE in planned.step.facts:  # its digest stands for all packages
            return {}
        return planned.toolchain if lock is None else chosen(lock, self.here(lock))

    def prepare(self, steps: Sequence[PlannedStep]) -> None:
        """Check or install the tools of these steps. Raises InputError, StoreFailure.

        All of them are checked before any is installed, as an installation may take gigabytes.
        """
        wanted: dict[str, str] = {}
        missing: list[Lock] = []
        for step in steps:
            lock, image = step.step.lock, step.step.facts.get(IMAGE)
            if image is not None:
                self.container(str(image))
            elif lock is not None and self.managed(lock):
                missing.append(lock)
            elif lock is None and step.toolchain and self.config.executor.name is choices.Executor.managed:
                versions = ", ".join(f"{name} {version}" for name, version in step.toolchain.items())
                raise InputError(
                    f"no lock has {versions} together",
                    option="executor=managed",
                    hint="make one (`trtbuild toolchain lock`) and give it: compiler.locks; or executor=process",
                )
            else:
                wanted |= self.versions(step)
        self._check_versions(wanted)
        for lock in missing:
            self.environments.ensure(lock, self.here(lock))

    def _check_versions(self, wanted: Mapping[str, str]) -> None:
        installed = pythons.python(self.config.executor.python, wanted).versions
        missing = [f"{name} {version}" for name, version in wanted.items() if name not in installed]
        if missing:
            raise InputError(
                f"{self.python} lacks what this build needs: {', '.join(missing)}",
                option="executor.python",
                hint=self._install_hint(missing),
            )
        for name, version in installed.items():
            if not matches(version, wanted[name]):
                raise InputError(
                    f"{name} {version} is installed in {self.python}, and {wanted[name]} is pinned",
                    option="compiler.version",
                    hint=f"pip install '{name}=={wanted[name]}'"
                    + ("" if self.exact else ", or take what is there: compiler.version=installed"),
                )

    def _install_hint(self, missing: list[str]) -> str:
        if COMPILERS[self.config.compiler.name].needs.image:
            return "name a Python that has them, executor.python=…, or take an image that does: executor=container"
        return f"executor=auto installs what has a lock; or pip install 'trtbuild[{self._extras(missing)}]'"

    def _extras(self, missing: list[str]) -> str:
        compiler = COMPILERS[self.config.compiler.name]
        genai = any(name.startswith(("torch ", "transformers ", "onnx-ir ")) for name in missing)
        return f"{compiler.needs.extra},genai" if genai else compiler.needs.extra
