"""The GPU, its driver, and whether that is new enough for the compiler's CUDA."""

from __future__ import annotations

from collections.abc import Iterator

from trtbuild import targets
from trtbuild.doctor import mends
from trtbuild.doctor.checks import Examined, Needs, chosen, judged
from trtbuild.doctor.world import World
from trtbuild.errors import InputError
from trtbuild.targets import Kind, hosts
from trtbuild.targets.hosts import Host

#: CUDA's major release -> the first branch of the driver that runs all of it (CUDA's release notes, table 3).
LEAST_DRIVER = {11: 450, 12: 525, 13: 580}


def check(needs: Needs, asked: targets.Asked, world: World) -> Iterator[Examined]:
    """NVML, nvidia-smi, the target, CUDA."""
    try:
        host = hosts.look(world.env)
    except InputError as broken:
        yield judged("driver", False, broken.message, required=needs.gpu, mend=chosen(mends.RELOAD, world.family))
        yield from _smi(needs, world, there=True)
        return
    there = host.driver is not None
    words = f"NVIDIA {host.driver}, CUDA {host.cuda}" if there else f"none ({host.missing})"
    if not there and not needs.gpu:
        yield Examined("driver", "unneeded", f"{words}; compiler={needs.compiler} builds without a GPU")
        return
    yield judged("driver", there, words, required=needs.gpu, mend=chosen(mends.DRIVER, world.family))
    yield _gpu(needs, asked, host, there=there)
    yield from _smi(needs, world, there=there)
    if there:
        yield from _cuda(needs, host, world)


_CUDA: tuple[Kind, ...] = ("cuda",)


def _gpu(needs: Needs, asked: targets.Asked, host: Host, *, there: bool) -> Examined:
    if not host.gpus:
        words = f"none that this process may use ({host.missing})" if there else "none, without a driver"
        return judged("gpu", False, words, required=needs.gpu)
    try:
        target = targets.resolve(asked, _CUDA)
    except InputError as wrong:
        words = f"{host.words()}; {wrong.message}" + (f" ({wrong.hint})" if wrong.hint else "")
        return judged("gpu", False, words, required=needs.gpu)
    here = (target.here or "").startswith("here")
    words = host.words() if here else f"{host.words()}, and target={target.name} is built on such a GPU alone"
    return judged("gpu", here, words, required=needs.gpu)


def _smi(needs: Needs, world: World, *, there: bool) -> Iterator[Examined]:
    if world.which("nvidia-smi") is None:
        words = "nvidia-smi is not on PATH: trtbuild does without, people do not"
        yield judged("nvidia-smi", False, words, required=False, mend=chosen(mends.NVIDIA_SMI, world.family))
        return
    said = world.run("nvidia-smi", "-L")
    good = said.ok and "GPU 0" in said.out
    words = f"{len(said.out.splitlines())} listed" if good else f"fails: {said.why}"
    mend = () if good else chosen(mends.RELOAD if there else mends.DRIVER, world.family)
    yield judged("nvidia-smi", good, words, required=needs.gpu, mend=mend)


def _cuda(needs: Needs, host: Host, world: World) -> Iterator[Examined]:
    if needs.cuda is None or host.driver is None:
        return
    least = LEAST_DRIVER[int(needs.cuda.partition(".")[0])]
    branch = int(host.driver.partition(".")[0])
    what = f"compiler={needs.compiler} is made for CUDA {needs.cuda}: driver {least} or later"
    words = what if branch >= least else f"{what}, and this one is {host.driver} (CUDA {host.cuda})"
    yield judged("cuda", branch >= least, words, required=needs.gpu, mend=chosen(mends.DRIVER, world.family))
