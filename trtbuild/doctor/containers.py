"""Containers that see the GPU: the engine, NVIDIA's toolkit, its runtime or CDI, the image, and one that is run."""

from __future__ import annotations

from collections.abc import Iterator

from trtbuild import untrusted
from trtbuild.doctor import mends
from trtbuild.doctor.checks import Examined, Needs, chosen, judged
from trtbuild.doctor.world import World
from trtbuild.executors.container import ENGINES, Container, gpu_flags, reference

_CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")


def check(needs: Needs, world: World) -> Iterator[Examined]:
    """Each is required only where the config runs steps in a container."""
    if not needs.container:
        yield Examined("container", "unneeded", "steps run as processes (executor=container runs them in an image)")
        return
    names = ENGINES if needs.engine == "auto" else (needs.engine,)
    engine = next((name for name in names if world.which(name)), None)
    if engine is None:
        words = f"none of {', '.join(names)} is installed" if len(names) > 1 else f"{names[0]} is not installed"
        yield judged("container", False, words, required=True, mend=chosen(mends.DOCKER, world.family))
        if needs.gpus != "none":
            yield _toolkit(world)
        yield _pinned(needs)
        return
    base = (engine, *needs.engine_flags)
    told = world.run(*base, "info", "--format", "json" if engine == "podman" else "{{json .}}")
    words = engine if told.ok else f"{engine} does not answer: {told.why}"
    others = [name for name in names if name != engine and world.which(name)]
    if others and not told.ok:
        words += f"; {others[0]} is here, too: executor.engine={others[0]}"
    mend = chosen(mends.DAEMON, world.family) if engine == "docker" else ()
    yield judged("container", told.ok, words, required=True, mend=mend)
    seen = True
    if needs.gpus != "none":
        yield _toolkit(world)
        way = _way(needs, engine, told.out, world)
        yield way
        seen = way.state == "ok"
    yield _pinned(needs)
    if told.ok and needs.image is not None:
        yield from _image(needs, base, engine, world, seen=seen)


def _toolkit(world: World) -> Examined:
    said = world.run("nvidia-ctk", "--version")
    version = said.out.splitlines()[0].strip() if said.ok and said.out.strip() else ""
    words = version or "NVIDIA's container toolkit is not installed (nvidia-ctk)"
    return judged("toolkit", bool(version), words, required=True, mend=chosen(mends.TOOLKIT, world.family))


def _way(needs: Needs, engine: str, info: str, world: World) -> Examined:
    """How GPUs get into a container of this engine: NVIDIA's runtime, or CDI."""
    way = ("cdi" if engine == "podman" else "runtime") if needs.gpus == "auto" else needs.gpus
    if way == "cdi":
        specs = [name for folder in _CDI_FOLDERS for name in world.listed(folder) if "nvidia" in name]
        words = ", ".join(specs) if specs else f"no description of NVIDIA's GPUs in {' or '.join(_CDI_FOLDERS)}"
        return judged("cdi", bool(specs), words, required=True, mend=chosen(mends.CDI, world.family))
    configured = '"nvidia"' in (world.text("/etc/docker/daemon.json") or "")
    known = "nvidia" in _runtimes(info)
    if known or engine == "nerdctl":
        return Examined("runtime", "ok", "NVIDIA's runtime is registered", required=True)
    words = (
        "NVIDIA's runtime is in /etc/docker/daemon.json, and the daemon has not read it"
        if configured
        else "NVIDIA's runtime is not registered with docker (/etc/docker/daemon.json)"
    )
    mend = ("sudo systemctl restart docker",) if configured else chosen(mends.RUNTIME, world.family)
    return judged("runtime", False, words, required=True, mend=mend)


def _runtimes(info: str) -> list[str]:
    try:
        told = untrusted.parse(info)
    except ValueError:
        return []
    runtimes = told.get("Runtimes") if isinstance(told, dict) else None
    return list(runtimes) if isinstance(runtimes, dict) else []


def _pinned(needs: Needs) -> Examined:
    image = needs.image or "none"
    good = "sha256:" in image
    words = image if good else f"{image} is not pinned by its digest, and steps run in no other (compiler.image)"
    mend = (f"docker buildx imagetools inspect {image}    # Digest: …, then compiler.image={image}@sha256:…",)
    return judged("image", good, words, required=True, mend=() if good else mend)


def _image(needs: Needs, base: tuple[str, ...], engine: str, world: World, *, seen: bool) -> Iterator[Examined]:
    """Whether the image is here; if so, whether a container of it sees the GPU."""
    if needs.image is None or "sha256:" not in needs.image:
        return
    name = reference(needs.image)
    if not world.run(*base, "image", "inspect", name).ok:
        words = "not here yet: it is pulled at the first build"
        yield judged("pulled", False, words, required=False, mend=(f"{engine} pull {name}",))
        return
    yield Examined("pulled", "ok", "the image is here")
    if needs.gpus == "none" or not seen:
        return
    box = Container(engine, needs.image, needs.gpus)
    said = world.run(
        *base,
        "run",
        "--rm",
        "--network",
        "none",
        *gpu_flags(box),
        *needs.flags,
        "--entrypoint",
        "nvidia-smi",
        name,
        "-L",
    )
    good = said.ok and "GPU 0" in said.out
    words = "a container of the image sees the GPU" if good else f"a container sees no GPU: {said.why}"
    mend = (*chosen(mends.TOOLKIT, world.family)[-1:], *chosen(mends.RUNTIME, world.family))
    yield judged("gpu in container", good, words, required=True, mend=mend)
