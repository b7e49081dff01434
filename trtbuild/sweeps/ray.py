"""Runs units as tasks of a Ray cluster, each with the resources of its hardware."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from trtbuild.config.sweep_schema import SweepConf
from trtbuild.errors import BuildError, InputError
from trtbuild.sweeps import job_entry, job_folder, remote
from trtbuild.sweeps.schedule import Observer, UnitResult
from trtbuild.sweeps.work import CPU, Unit

LOOK = 1.0  # seconds to wait for the next answer
CONNECT = 10.0  # seconds for the head to take a connection
PATIENCE = 20.0  # seconds for cancelled tasks to be gone
ACCELERATOR = "accelerator_type:"  # the prefix of Ray's own resource


@dataclass
class _RunningTask:
    unit: Unit
    task: Any
    since: float = field(default_factory=time.time)


class Ray:
    """A cluster that runs already; all its machines have this trtbuild, and the store under the same path."""

    def __init__(self, conf: SweepConf, shared: Sequence[str], root: Path, observer: Observer) -> None:  # noqa: ARG002  # as all engines
        """`shared` are flags for all tasks. Raises InputError where the cluster is not there."""
        self._conf, self._shared, self._observer = conf, shared, observer
        self._running: dict[str, _RunningTask] = {}
        try:
            _connect(conf.ray.address)
            ray.init(conf.ray.address, logging_level=logging.ERROR, log_to_driver=False)
        except (OSError, RayError, ValueError, RuntimeError) as failure:
            said = str(failure).strip().splitlines()
            raise InputError(
                f"no Ray cluster answers: {said[0] if said else type(failure).__name__}",
                option=f"sweep.ray.address={conf.ray.address}",
                hint="`ray status` shows one; `ray start --head` starts one",
            ) from None

    def start(self, ready: Sequence[Unit]) -> Sequence[Unit]:
        """All of them, or as many as sweep.jobs leaves room for; Ray holds those that must wait."""
        room = len(ready) if self._conf.jobs is None else self._conf.jobs - len(self._running)
        taken = list(ready[: max(0, room)])
        for unit in taken:
            options = self._options(unit)
            task = ray.remote(job_entry.run).options(**options)
            self._running[unit.key] = _RunningTask(
                unit, task.remote(remote.words_of(unit, self._shared, self._conf.ray.cpus), None)
            )
            self._observer.started(unit, "a task of Ray")
        return taken

    def wait(self) -> Sequence[UnitResult]:
        """What has answered, or was lost."""
        tasks = {each.task: each for each in self._running.values()}
        answered, _ = ray.wait(list(tasks), num_returns=1, timeout=LOOK)
        results = [self._ended(tasks[task]) for task in answered]
        for ended in results:
            del self._running[ended.unit.key]
        return results

    def stop(self) -> None:
        """Cancel what runs, and wait until it is gone."""
        tasks = [each.task for each in self._running.values()]
        for task in tasks:
            ray.cancel(task, force=True)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=PATIENCE)
        ray.shutdown()

    def _options(self, unit: Unit) -> dict[str, Any]:
        """What the task asks of the cluster. Raises InputError where no machine has such hardware."""
        options: dict[str, Any] = {
            "num_cpus": self._conf.ray.cpus,
            "max_retries": 0,
            "name": f"trtbuild {unit.label}",
        }
        memory = remote.memory_gb([unit], self._conf.ray.memory_gb)
        if memory is not None:
            options["memory"] = int(memory * 1e9)
        if unit.group == CPU:
            return options
        options["num_gpus"] = 1
        kind = unit.job.point.config.target.job.accelerator
        if kind is not None:
            there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            if ACCELERATOR + kind not in there:
                kinds = [name.removeprefix(ACCELERATOR) for name in there if name.startswith(ACCELERATOR)]
                raise InputError(
                    f"no machine of the cluster has the accelerator {kind}",
                    option="target.job.accelerator",
                    hint=f"there are: {', '.join(sorted(kinds)) or 'none'}",
                )
            options["accelerator_type"] = kind
        return options

    def _ended(self, each: _RunningTask) -> UnitResult:
        try:
            return remote.ended(each.unit, job_folder.parse(str(ray.get(each.task))), "", each.since)
        except BuildError as error:
            return UnitResult(each.unit, None, error, each.since, time.time(), "a task of Ray", each.since)
        except RayError:
            return _lost(each)


def _lost(each: _RunningTask) -> UnitResult:
    error = BuildError(
        "the task was lost: its process died, or its machine went away",
        hint="`ray logs` may say why; the same command builds what is missing",
    )
    return UnitResult(each.unit, None, error, each.since, time.time(), "a task of Ray", each.since)


def _connect(address: str) -> None:
    """Raises OSError where nothing listens at host:port: Ray itself would try for minutes."""
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if match := re.fullmatch(r"([\w.-]+):(\d{1,5})", named):
        with socket.create_connection((match[1], int(match[2])), timeout=CONNECT):
            pass
