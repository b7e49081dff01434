"""`serve=…`: what a server needs for an engine, written into the folder `<out>.serve` beside the link `out`."""

from __future__ import annotations

from pathlib import Path

from trtbuild.compilers.registry import COMPILERS
from trtbuild.config import schema
from trtbuild.errors import InputError
from trtbuild.facts.key import Step


def check(config: schema.Config, final: Step) -> None:
    """Raises InputError where nothing can be written for what is asked, before anything is built."""
    kind, compiler = config.serve.value, COMPILERS[config.compiler.name]
    if kind == "none":
        return
    if kind not in compiler.serving.files:
        there = sorted(name for name, each in COMPILERS.items() if kind in each.serving.files)
        raise InputError(
            f"compiler={compiler.name} has no engines for {kind}",
            option=f"serve={kind}",
            hint=f"compilers that have: {', '.join(there)}",
        )
    compiler.serving.check(kind, final)
    if config.out is None or not final.handling.loads:
        raise InputError(
            "it is written beside the link to an engine",
            option=f"serve={kind}",
            hint="say where: out=engine makes engine and engine.serve",
        )
    if _place(config.out).exists() and not _place(config.out).is_dir():
        raise InputError(f"{_place(config.out)} is in the way", option=f"serve={kind}")


def write(config: schema.Config) -> Path | None:
    """The folder that was written for the engine that `out` links to. Raises BuildError, InputError."""
    if config.serve.value == "none" or config.out is None:
        return None
    files = COMPILERS[config.compiler.name].serving.files[config.serve.value](Path(config.out).absolute())
    place = _place(config.out)
    try:
        place.mkdir(exist_ok=True)
        for name, text in files.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            if name.endswith(".sh"):
                path.chmod(0o755)
    except OSError as error:
        raise InputError(f"{place}: {error.strerror}", option=f"serve={config.serve.value}") from None
    return place


def _place(out: str) -> Path:
    link = Path(out).absolute()
    return link.with_name(f"{link.name}.serve")
