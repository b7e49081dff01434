"""The tensors of a .safetensors file, as its header places them.

The library's numpy front end knows no bfloat16 and maps the whole file, hence a reader of our own (`tensor_header`).
"""

from __future__ import annotations

from pathlib import Path

from trtbuild import tensor_header
from trtbuild.networks.stored import Stored, broken


def read_header(path: Path, file: str) -> dict[str, Stored]:
    """The tensors of the file at `path`, called `file` in messages, of whatever type.

    Raises InputError when it is broken.
    """
    with path.open("rb") as stream:

        def first(count: int) -> bytes:
            stream.seek(0)
            return stream.read(count)

        try:
            found = tensor_header.parse(first, path.stat().st_size)
        except tensor_header.Malformed as malformed:
            raise broken(file, str(malformed)) from None
    return {
        name: Stored(path, file, name, each.kind, each.shape, each.begin, each.end - each.begin)
        for name, each in found.items()
    }
