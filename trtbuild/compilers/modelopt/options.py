"""What compiler=modelopt offers, and what it takes where nothing is said."""

from __future__ import annotations

import os
from collections.abc import Mapping

DTYPES = ("bfloat16", "float16", "float32")
#: archspec's level -> what torch, oneDNN and MKL are told, by variables of the environment that each documents
_INSTRUCTION_SETS: Mapping[str, tuple[str, str, str]] = {
    "x86_64": ("default", "SSE41", "SSE4_2"),
    "x86_64_v2": ("default", "SSE41", "SSE4_2"),
    "x86_64_v3": ("avx2", "AVX2", "AVX2"),
    "x86_64_v4": ("avx512", "AVX512_CORE", "AVX512"),
}
LEVELS = tuple(sorted(_INSTRUCTION_SETS))


def instruction_sets(level: str | None) -> dict[str, str]:
    """The environment of a process that is to compute with no more than `level`; empty for one that has no levels."""
    if level is None or level not in _INSTRUCTION_SETS:
        return {}
    aten, dnn, mkl = _INSTRUCTION_SETS[level]
    return {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": dnn, "MKL_ENABLE_INSTRUCTIONS": mkl}


def settle(level: str | None) -> None:
    """Bind this process to `level`, and to what lies on this machine, before torch and transformers are imported.

    torch, oneDNN and MKL read it when they are loaded: a calibration for one instruction set uses just that.
    """
    os.environ.update(instruction_sets(level))
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
