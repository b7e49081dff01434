"""Runs units as jobs of a Slurm cluster: arrays, one for each kind of hardware that is ready to start."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit

from trtbuild.config.sweep_schema import JobConf, SlurmConf, SweepConf
from trtbuild.errors import BuildError, InputError, TrtbuildError
from trtbuild.processes import programs
from trtbuild.sweeps import job_entry, job_folder, remote
from trtbuild.sweeps.schedule import Observer, UnitResult
from trtbuild.sweeps.work import CPU, Unit

LOOK = 0.5  # seconds between two looks for answers
ASK = 3.0  # seconds between two questions to Slurm
GRACE = 2  # questions in a row that a job may be missing from the queue: its answer may be on its way
PATIENCE = 30.0  # seconds for cancelled jobs to be gone
TAIL = 8  # lines of a job's log


@dataclass
class _RunningJob:
    unit: Unit
    job: submitit.Job[str]
    answer: Path
    since: float = field(default_factory=time.time)
    missing: int = 0  # questions in a row


class Slurm:
    """A cluster, as the user's own Slurm commands reach it."""

    def __init__(self, conf: SweepConf, shared: Sequence[str], root: Path, observer: Observer) -> None:
        """`shared` are flags for all jobs, `root` is the store's folder. Raises InputError where Slurm is not there."""
        missing = [name for name in ("sbatch", "squeue", "scancel") if programs.find(name) is None]
        if missing:
            raise InputError(
                f"{missing[0]} is not in PATH",
                option="sweep.on=slurm",
                hint="run it where Slurm's commands are",
            )
        self._conf, self._shared, self._observer = conf, shared, observer
        base = Path(conf.slurm.folder).expanduser().absolute() if conf.slurm.folder else root / "jobs"
        self._folder = base / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        job_folder.make_private(self._folder)
        self._running: dict[str, _RunningJob] = {}
        self._failed = False
        self._asked = time.monotonic()

    def start(self, ready: Sequence[Unit]) -> Sequence[Unit]:
        """All of them, or as many as sweep.jobs leaves room for."""
        room = len(ready) if self._conf.jobs is None else self._conf.jobs - len(self._running)
        taken = list(ready[: max(0, room)])
        for like in _alike(taken):
            self._submit(like)
        return taken

    def wait(self) -> Sequence[UnitResult]:
        """What has answered, or is gone without an answer."""
        time.sleep(LOOK)
        done = [each for each in self._running.values() if os.path.lexists(each.answer)]
        results = [self._answered(each) for each in done]
        if time.monotonic() - self._asked >= ASK:
            self._asked = time.monotonic()
            lost = [each for each in self._lost() if each not in done]
            results += [self._without_answer(each) for each in lost]
            done += lost
        for each in done:
            del self._running[each.unit.key]
        self._failed = self._failed or any(ended.error is not None for ended in results)
        return results

    def _answered(self, each: _RunningJob) -> UnitResult:
        try:
            return remote.ended(each.unit, job_folder.read(each.answer), _name(each), each.since)
        except BuildError as error:
            return UnitResult(each.unit, None, error, each.since, time.time(), _name(each), each.since)

    def stop(self) -> None:
        """Cancel what runs, and wait until it is gone. The folder stays where a job's log may be wanted."""
        ids = [each.job.job_id for each in self._running.values()]
        until = time.monotonic() + PATIENCE
        while ids and time.monotonic() < until:
            _ask("scancel", *ids)
            time.sleep(LOOK)
            queue = _queue()
            ids = [job for job in ids if queue is None or job in queue]
        if not self._failed and not self._running:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _submit(self, units: Sequence[Unit]) -> None:
        """One array of jobs that need the same. Raises InputError where Slurm refuses it."""
        conf, wants = self._conf.slurm, units[0].job.point.config.target.job
        # Not the working directory: a job starts in that of this command, and `python -m` looks there first.
        python = shlex.join(programs.own())
        executor = submitit.SlurmExecutor(folder=self._folder, max_num_timeout=0, python=python)
        executor.update_parameters(**self._parameters(conf, wants, units))
        places = [self._folder / f"{unit.key}.json" for unit in units]
        lines = [remote.words_of(unit, self._shared, conf.cpus) for unit in units]
        try:
            jobs = executor.map_array(job_entry.run, lines, [str(place) for place in places])
        except submitit.core.utils.FailedJobError as failure:
            said = str(failure).strip().splitlines()
            raise InputError(
                f"Slurm refuses the jobs of {units[0].group}: {said[-1] if said else 'no reason given'}",
                option=f"target={units[0].group}" if units[0].group != CPU else "sweep.slurm",
                hint="see target.job.partition, .gres and .constraint, and sweep.slurm",
            ) from None
        for unit, job, place in zip(units, jobs, places, strict=True):
            self._running[unit.key] = _RunningJob(unit, job, place)
            self._observer.started(unit, f"job {job.job_id}")

    def _parameters(self, conf: SlurmConf, wants: JobConf, units: Sequence[Unit]) -> dict[str, Any]:
        gpu = units[0].group != CPU
        minutes = conf.minutes or max(1, round(units[0].job.point.config.executor.timeout_minutes))
        more = {
            "container-image": wants.container if gpu else None,
            "no-requeue": True,  # a lost job is reported; the next sweep goes on from there
        }
        asked: dict[str, Any] = {
            "job_name": f"trtbuild-{units[0].group}",
            "partition": (wants.partition if gpu else None) or conf.partition,
            "gres": (wants.gres or "gpu:1") if gpu else None,
            "constraint": wants.constraint if gpu else None,
            "account": conf.account,
            "qos": conf.qos,
            "cpus_per_task": conf.cpus,
            "mem": _megabytes(remote.memory_gb(units, conf.memory_gb)),
            "time": minutes,
            "setup": list(conf.setup) or None,
            "array_parallelism": len(units),
            "additional_parameters": {name: value for name, value in more.items() if value is not None},
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _lost(self) -> list[_RunningJob]:
        """Those that Slurm no longer has, and that have not answered either."""
        queue = _queue()
        if queue is None:
            return []
        for each in self._running.values():
            each.missing = 0 if each.job.job_id in queue else each.missing + 1
        return [each for each in self._running.values() if each.missing >= GRACE]

    def _without_answer(self, each: _RunningJob) -> UnitResult:
        state = _state(each.job.job_id)
        log = each.job.paths.stderr
        error: TrtbuildError = BuildError(
            f"job {each.job.job_id} ended without an answer: Slurm says {state}",
            details=[*_tail(log), f"log:    {log}"],
            hint="the same command builds what is missing",
        )
        return UnitResult(each.unit, None, error, each.since, time.time(), _name(each), each.since)


def _name(each: _RunningJob) -> str:
    return f"job {each.job.job_id}"


def _alike(units: Sequence[Unit]) -> list[list[Unit]]:
    """Groups of units that one array can hold: the same hardware and the same request."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        wants = unit.job.point.config.target.job if unit.group != CPU else None
        groups.setdefault(f"{unit.group} {wants}", []).append(unit)
    return list(groups.values())


def _ask(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What one of Slurm's commands says. Raises OSError where it is not there."""
    program = programs.find(name)
    if program is None:
        raise FileNotFoundError(name)
    return subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, cwd="/", env=programs.cleaned()
    )


def _queue() -> set[str] | None:
    """The ids of all jobs that wait or run; None where Slurm does not answer."""
    done = _ask("squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}")
    # While an array waits as a whole, old releases show it as 12_[0-3] even so.
    return _expanded(done.stdout.split()) if done.returncode == 0 else None


def _expanded(ids: Sequence[str]) -> set[str]:
    names = set()
    for each in ids:
        names.add(each)
        if match := re.fullmatch(r"(\d+)_\[([\d,-]+)(%\d+)?\]", each):
            for part in match[2].split(","):
                first, _, last = part.partition("-")
                names |= {f"{match[1]}_{number}" for number in range(int(first), int(last or first) + 1)}
    return names


def _state(job: str) -> str:
    """What the accounts say of a job, where there are any."""
    for command in (
        ["sacct", "--noheader", "--parsable2", "--allocations", "--format=State", f"--jobs={job}"],
        ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"],
    ):
        with contextlib.suppress(OSError):
            done = _ask(*command)
            if done.returncode == 0 and done.stdout.strip():
                return done.stdout.split()[0]
    return "nothing of it"


def _megabytes(gigabytes: float | None) -> str | None:
    return None if gigabytes is None else f"{round(gigabytes * 1000)}M"


def _tail(log: Path) -> list[str]:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [f"  | {line[:200]}" for line in lines if line.strip()][-TAIL:]
