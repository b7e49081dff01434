"""A package as it is stored: only what its loader reads, in a fixed order, with no trace of the machine."""

from __future__ import annotations

import re
import shlex
import stat
import zipfile
from pathlib import Path

_SOURCE = ".cpp"  # torch 2.11 wants the file to exist; its content has paths of the machine
_BLANK = b"// It is compiled, in the library beside it.\n"
_RANDOM_ID = "/serialization_id"
_CONSTANT = re.compile(r'constants_info_\[\d+\]\.original_fqn = "([^"]+)"')
_DATE = (1980, 1, 1, 0, 0, 0)
_PIECE = 16 << 20


def settle(source: Path, target: Path) -> None:
    """Write the package `source` to `target` without the C++ code that it was compiled from."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as kept:
        for name in sorted(archive.namelist()):
            if name.endswith(_RANDOM_ID):
                continue
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            if name.endswith(_SOURCE):
                kept.writestr(entry, _BLANK)
                continue
            with archive.open(name) as stream, kept.open(entry, "w", force_zip64=True) as out:
                while piece := stream.read(_PIECE):
                    out.write(piece)


def wanted(path: Path) -> list[str]:
    """The names of the tensors that a package's code wants, from its C++ code: nothing is loaded."""
    with zipfile.ZipFile(path) as archive:
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(_SOURCE)]
    return [name for source in sources for name in _CONSTANT.findall(source)]


def wrapped(compiler: str, stage: Path, torch: Path, level: str | None) -> Path:
    """A script in `stage` that runs `compiler` for CPUs of `level`, though PyTorch says -march=native.

    It keeps the paths of `stage` and `torch` out of its output.
    """
    folder = stage / "bin"
    folder.mkdir()
    path = folder / Path(compiler).name  # PyTorch tells compilers apart by their names
    flags = [f"-ffile-prefix-map={place}={name}" for place, name in ((stage, "."), (torch, "torch"))]
    if level is not None:
        flags.append(f"-march={level.replace('_', '-')}")
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(compiler)} "$@" {shlex.join(flags)}\n', encoding="utf-8")
    path.chmod(0o700)
    return path
