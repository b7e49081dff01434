"""Folders that a step reads besides the checkpoint, such as calibration text: located before it, rechecked after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtbuild.compilers.registry import COMPILERS
from trtbuild.config import schema
from trtbuild.errors import BuildError, InputError
from trtbuild.facts.recipe import Value
from trtbuild.sources.folder import content, is_digest, located
from trtstore import Index, hash_files


@dataclass(frozen=True)
class _QuietDigester:
    """A Digester without progress."""

    index: Index

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        return hash_files(paths, self.index)


def locate(conf: schema.CompilerConf, facts: Mapping[str, Value], index: Index) -> dict[str, Path]:
    """The folders of a step with these facts, by the names that its worker uses: "calib_dataset", "lora_dir.0".

    Raises InputError for a folder that the config names only by its digest.
    """
    folders = {}
    for name, option, path, digest in _named(conf, facts):
        if path is None or is_digest(path):
            raise InputError(
                f"the folder {digest[:19]}… is elsewhere, and this step reads it",
                option=option,
                hint=f"name it where it lies: {option}=/path",
            )
        folders[name] = located(path, option, _QuietDigester(index)).absolute()
    return folders


def recheck(conf: schema.CompilerConf, facts: Mapping[str, Value], index: Index) -> None:
    """Raises BuildError if a folder is no longer what the key says. Files whose stat is unchanged are not read."""
    compiler = COMPILERS.get(str(facts.get("compiler.name")))
    folders = {} if compiler is None else compiler.folders
    for _, option, path, digest in _named(conf, facts):
        is_file = folders.get(option, False)
        if path is not None and content(path, option, _QuietDigester(index), file=is_file) != digest:
            raise BuildError(
                f"{path} was changed while the step read it",
                option=option,
                hint="nothing was kept: build again when it is at rest",
            )


def _named(conf: schema.CompilerConf, facts: Mapping[str, Value]) -> Iterator[tuple[str, str, str | None, str]]:
    """(the worker's name, option, path in the config, digest in the key) of each folder."""
    compiler = COMPILERS.get(str(facts.get("compiler.name")))
    for option in () if compiler is None else compiler.folders:
        value, named = facts.get(option), getattr(conf, option.removeprefix("compiler."), None)
        name = option.removeprefix("compiler.")
        if isinstance(value, tuple):
            for at, digest in enumerate(value):
                path = named[at] if isinstance(named, list) and at < len(named) else None
                yield f"{name}.{at}", option, path, str(digest)
        elif value is not None:
            yield name, option, named if isinstance(named, str) else None, str(value)
