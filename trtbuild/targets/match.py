"""Matches the options of `target` with the hardware of this machine and with the catalogue."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from trtbuild.errors import InputError
from trtbuild.targets import cpu
from trtbuild.targets.asked import CUDA_OPTIONS, GPU_FACTS, Asked, check, identity
from trtbuild.targets.cpu import DETECTED
from trtbuild.targets.facts import Gpu, Kind, Target, driver_fact
from trtbuild.targets.hosts import GpuKind, Host, look, slots

NAME_ONE = "name what it is built for: target=rtx4070, target=h100_sxm, …; `trtbuild target=help` lists all"


def resolve(asked: Asked, kinds: Collection[Kind]) -> Target:
    """The target that `asked` means for a compiler that builds for `kinds`. Raises InputError.

    NVIDIA's library is asked only where a GPU is. A GPU that is named by all its facts need not be here: its driver
    is then `target.driver`, or the fleet's.
    """
    check(asked)
    option = f"target={asked.name}"
    try:
        kind, host = _kind(asked, kinds)
        if kind == "cpu":
            return _cpu(asked)
        return _cuda(asked, host or _look(asked))
    except InputError as error:
        if error.option == "target":
            error.option = option
        raise


def at_hand(kind: Kind, device: int | None = None) -> Target | None:
    """The hardware of `kind` in this machine; None where there is none.

    Raises InputError where its GPUs are of several kinds and `device`, an index of nvidia-smi's, picks none, and
    where a driver is there and does not work.
    """
    if kind == "cpu":
        return cpu.detect()
    host = look()
    return _cuda(Asked("auto", device=device), host) if host.gpus else None


def kinds_here(kind: Kind) -> tuple[Target, ...]:
    """Each kind of hardware of `kind` in this machine: the CPU, or one target for each kind of GPU or slice.

    A GPU of which NVML does not tell enough is left out. Raises InputError where a driver does not work.
    """
    if kind == "cpu":
        return (cpu.detect(),)
    host = look()
    kinds: list[Target] = []
    for seen, indices in host.kinds().items():
        with suppress(InputError):
            kinds.append(_present(Asked("auto"), host, seen, len(indices)))
    return tuple(kinds)


def gpu_slots(target: Target) -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls each GPU or slice here that is of the target's kind. Raises InputError."""
    return tuple(name for seen, name in slots() if target.gpu is not None and _same(seen, target.gpu))


def gpus_here() -> str:
    """The GPUs of this machine, for people. Raises InputError."""
    return look().words()


def _same(seen: GpuKind, gpu: Gpu) -> bool:
    """Whether it is that GPU; what NVML does not tell counts as equal."""
    asked = (gpu.name, gpu.memory_gb, gpu.compute_capability, gpu.sm_count)
    actual = (seen.gpu, seen.memory_gb, seen.compute_capability, seen.sm_count)
    return seen.mig == gpu.mig and all(mine in (None, wanted) for mine, wanted in zip(actual, asked, strict=True))


def _kind(asked: Asked, kinds: Collection[Kind]) -> tuple[Kind, Host | None]:
    """The kind that is meant, with what is seen here where that decided it."""
    cuda = next((name for name in CUDA_OPTIONS if getattr(asked, name) is not None), None)
    if asked.kind == "cpu" or asked.name == "cpu":
        if cuda is not None:
            raise InputError(f"a CPU has no {cuda}", option=f"target.{cuda}", hint="leave it out, or name a GPU")
        return "cpu", None
    if asked.kind == "cuda" or cuda is not None:
        if asked.level is not None:
            raise InputError("a GPU has no level", option=f"target.level={asked.level}", hint="leave it out")
        return "cuda", None
    if asked.level is not None or "cuda" not in kinds:
        return "cpu", None
    host = look()
    return ("cuda" if host.gpus or "cpu" not in kinds else "cpu"), host


def _cpu(asked: Asked) -> Target:
    if asked.level is not None:
        return cpu.named("cpu" if asked.name == "auto" else asked.name, asked.level, asked.arch)
    if asked.name not in ("auto", "cpu"):
        raise InputError(
            f"target={asked.name} does not say which hardware it is",
            option="target.kind",
            hint="a CPU has target.level; a GPU has target.gpu, memory_gb, compute_capability and sm_count",
        )
    cpu_here = cpu.detect()
    if asked.arch not in (None, cpu_here.arch):
        raise InputError(
            f"the CPU of this machine is {cpu_here.arch}",
            option=f"target.arch={asked.arch}",
            hint="target=cpu_arm64, target=cpu_x86_64_v3 and target=cpu_x86_64_v4 need not be here",
        )
    return cpu_here


def _look(asked: Asked) -> Host:
    """The hardware of this machine. A driver that does not work is an error only if the GPU must be here."""
    try:
        return look()
    except InputError as error:
        if asked.complete and asked.device is None:
            return Host(missing=error.message)
        raise


def _cuda(asked: Asked, host: Host) -> Target:
    wanted = asked.facts()
    here = {
        _filled(seen, wanted): [at for at in indices if asked.device in (None, at)]
        for seen, indices in host.kinds().items()
        if _is(seen, wanted, asked) and (asked.device is None or asked.device in indices)
    }
    if len(here) > 1:
        raise InputError(
            f"the GPUs here are of several kinds: {_listed(host)}",
            option="target",
            hint="pick one by its index: target.device=0, or by its kind: target=rtx4090, …",
        )
    for seen, indices in here.items():
        return _present(asked, host, seen, len(indices))
    if asked.device is not None:
        raise InputError(
            f"GPU {asked.device} is not {_words(wanted) if wanted else 'here'}: this machine has {_listed(host)}",
            option=f"target.device={asked.device}",
        )
    if not wanted and (asked.kind is None or asked.name == "auto"):
        reason = host.missing or f"this machine has {host.words()}, on {cpu.arch()}"
        raise InputError(f"there is no such NVIDIA GPU here: {reason}", option="target", hint=NAME_ONE)
    return _absent(asked, host, wanted)


def _is(seen: GpuKind, wanted: Mapping[str, str | int], asked: Asked) -> bool:
    """Whether what is asked holds of a GPU here; what NVML does not tell is taken from what is asked."""
    if asked.arch not in (None, cpu.arch()) or (asked.complete and seen.mig != asked.mig):
        return False
    return all(getattr(seen, name) in (None, value) for name, value in wanted.items())


def _filled(seen: GpuKind, wanted: Mapping[str, str | int]) -> GpuKind:
    unknown = {name: wanted[name] for name in GPU_FACTS if getattr(seen, name) is None and name in wanted}
    return replace(seen, **unknown)  # type: ignore[arg-type]  # each value has its own option's type


def _present(asked: Asked, host: Host, seen: GpuKind, count: int) -> Target:
    gpu = _gpu(
        {name: getattr(seen, name) for name in (*GPU_FACTS, "mig")},
        f"NVML does not tell it of the {seen.gpu}",
    )
    base = (host.driver, host.cuda, DETECTED)
    origins = dict.fromkeys(("arch", "gpus", "mig"), DETECTED)
    for name in GPU_FACTS:
        told = any(getattr(raw, name) == getattr(seen, name) for raw in host.kinds())
        origins[name] = DETECTED if told else f"target.{name}="
    many = 1 if seen.mig else count  # a process sees one slice: the MIG guide, "Device Enumeration"
    return _target(
        asked,
        gpu,
        base,
        origins,
        gpus=many,
        here="here" if count == 1 else f"here: {count} of them",
    )


def _absent(asked: Asked, host: Host, wanted: Mapping[str, str | int]) -> Target:
    reason = f"no GPU here is {_words(wanted) or asked.name}, and one elsewhere needs all its facts"
    values: dict[str, str | int | None] = {name: wanted.get(name) for name in (*GPU_FACTS, "mig")}
    gpu = _gpu(values, reason)
    if asked.arch is None:
        raise InputError(f"{reason}: target.arch is missing", option="target.arch", hint="x86_64 or aarch64")
    base = (asked.fleet.driver, asked.fleet.cuda, f"fleet={asked.fleet.name}")
    if asked.name == "auto":
        origins = {"arch": f"target.arch={asked.arch}", **{name: f"target.{name}=" for name in wanted}}
    else:
        origins = dict.fromkeys(("arch", *wanted), f"target={asked.name}")
    return _target(
        asked,
        gpu,
        base,
        origins,
        gpus=1,
        here=f"not here: this machine has {host.words()}",
    )


def _target(
    asked: Asked,
    gpu: Gpu,
    base: tuple[str | None, str | None, str],
    origins: dict[str, str],
    *,
    gpus: int,
    here: str,
) -> Target:
    """A CUDA target with the driver that options ask for, or else that of `base` (driver, CUDA, where from)."""
    driver, cuda, source = asked.driver or base[0], asked.cuda or base[1], base[2]
    if asked.driver and not asked.cuda and driver_fact(driver, "branch") != driver_fact(base[0], "branch"):
        raise InputError(
            f"{driver} is another branch than {base[0] or 'none'} ({source}), so it brings another CUDA version",
            option="target.cuda",
            hint="give it too: target.cuda='12.8' is what nvidia-smi shows beside the driver's release",
        )
    for option, value in (("driver", driver), ("cuda", cuda)):
        if value is None:
            raise InputError(
                f"target.{option} is required: {source} does not tell it",
                option=f"target.{option}",
                hint=f"give it: target.{option}=…, or a fleet of your own: fleet=ours",
            )
    origins["driver"] = "target.driver=" if asked.driver else source
    origins["cuda"] = "target.cuda=" if asked.cuda else source
    origins["gpus"] = "target.gpus=" if asked.gpus else origins["gpu"]
    if gpu.mig is None:
        origins.pop("mig", None)
    return Target(
        name=_slug(gpu) if asked.name == "auto" else asked.name,
        kind="cuda",
        arch=asked.arch or cpu.arch(),
        gpu=gpu,
        gpus=asked.gpus or gpus,
        driver=driver,
        cuda=cuda,
        origins=origins,
        here=here,
    )


def _gpu(values: Mapping[str, str | int | None], reason: str) -> Gpu:
    """Raises InputError, naming the options, where a fact is missing."""
    needed = identity(str(values["compute_capability"]))
    missing = [f"target.{name}" for name in needed if values[name] is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(
            f"{reason}: {', '.join(missing)} {verb} missing",
            option=missing[0],
            hint=f"give {'it' if len(missing) == 1 else 'them'}, or {NAME_ONE}",
        )
    mig = values["mig"]
    return Gpu(
        name=str(values["gpu"]),
        memory_gb=int(values["memory_gb"] or 0),
        compute_capability=str(values["compute_capability"]),
        sm_count=int(values["sm_count"] or 0),
        mig=None if mig is None else str(mig),
    )


def _words(wanted: Mapping[str, str | int]) -> str:
    units = {
        "memory_gb": "{} GB",
        "compute_capability": "compute capability {}",
        "sm_count": "{} SMs",
        "mig": "MIG {}",
    }
    return ", ".join(units.get(name, "{}").format(value) for name, value in wanted.items())


def _listed(host: Host) -> str:
    if not host.gpus:
        return host.words()
    return ", ".join(f"{index}: {seen.words()}" for index, seen in host.gpus)


def _slug(gpu: Gpu) -> str:
    words = gpu.name if gpu.mig is None else f"{gpu.name} mig {gpu.mig}"
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
