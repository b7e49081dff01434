"""Reads the header of a plan of TensorRT for RTX: its first 64 bytes. No GPU, driver or library is needed.

NVIDIA documents that there is a header (`Runtime.engine_header_size`) and that `get_engine_validity` needs no more, but
not its layout. This is what release 1.7 writes, as seen in plans for each compute capability:

     0  "vtrt"                       28  "vtrt"
     8  int64: format, 2             32  int64: one bit per compute capability, in the order of `CAPABILITIES`
    16  int64: bytes of the plan
    24  4 bytes: release, 1.7.1.116

A portable plan has the bits from 8.0 on, and one more for later capabilities. A plan that begins otherwise is no error,
as releases differ: it just has no description.
"""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 64
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1", "later")
_MAGIC = b"vtrt"
_FORMAT = 2


@dataclass(frozen=True)
class EngineHeader:
    """`release` is as the package's version, "1.7.1.116"; `capabilities` some of `CAPABILITIES`; `size` is in bytes."""

    release: str
    capabilities: tuple[str, ...]
    size: int


def read(start: bytes) -> EngineHeader | None:
    """The header in the first `SIZE` bytes of a plan; None if they have another layout."""

    def number(at: int) -> int:
        return int.from_bytes(start[at : at + 8], "little")

    if len(start) < SIZE or start[:4] != _MAGIC or start[28:32] != _MAGIC or number(8) != _FORMAT:
        return None
    bits = number(32)
    if bits >> len(CAPABILITIES):
        return None
    capabilities = tuple(name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1)
    return EngineHeader(".".join(map(str, start[24:28])), capabilities, number(16))
