"""What the first 64 bytes of a plan of TensorRT for RTX say; no GPU, driver or library is needed to read them.

NVIDIA documents that such a header is there (`Runtime.engine_header_size`) and enough for `get_engine_validity`, not
what is in it. What follows is as release 1.7 writes it, seen on plans for each compute capability:

     0  "vtrt"                       28  "vtrt"
     8  int64: format, 2             32  int64: one bit per compute capability, in the order of `CAPABILITIES`
    16  int64: bytes of the plan
    24  4 bytes: release, 1.7.1.116

The bits of a portable plan are those from 8.0 on, and one more: what comes later. A plan that does not begin so is not
described, which is no error: releases differ.
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
    """The header in the first `SIZE` bytes of a plan; None where they are not laid out as above."""

    def number(at: int) -> int:
        return int.from_bytes(start[at : at + 8], "little")

    if len(start) < SIZE or start[:4] != _MAGIC or start[28:32] != _MAGIC or number(8) != _FORMAT:
        return None
    bits = number(32)
    if bits >> len(CAPABILITIES):
        return None
    capabilities = tuple(name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1)
    return EngineHeader(".".join(map(str, start[24:28])), capabilities, number(16))
