"""Values of options that the steps and their worker share, and the instruction set that a worker computes with."""

from __future__ import annotations

import os
from collections.abc import Mapping

DTYPES = ("bfloat16", "float16", "float32")
#: archspec's level -> values of the environment variables that limit torch, oneDNN and MKL
_INSTRUCTION_SETS: Mapping[str, tuple[str, str, str]] = {
    "x86_64": ("default", "SSE41", "SSE4_2"),
    "x86_64_v2": ("default", "SSE41", "SSE4_2"),
    "x86_64_v3": ("avx2", "AVX2", "AVX2"),
    "x86_64_v4": ("avx512", "AVX512_CORE", "AVX512"),
}
LEVELS = tuple(sorted(_INSTRUCTION_SETS))


def instruction_sets(level: str | None) -> dict[str, str]:
    """Environment variables that limit a process to `level`; empty for an architecture without levels."""
    if level is None or level not in _INSTRUCTION_SETS:
        return {}
    aten, dnn, mkl = _INSTRUCTION_SETS[level]
    return {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": dnn, "MKL_ENABLE_INSTRUCTIONS": mkl}


def bind_instruction_set(level: str | None) -> None:
    """Limit this process to `level`, and to local files. Call it before torch and transformers are imported.

    torch, oneDNN and MKL read the variables when they are loaded.
    """
    os.environ.update(instruction_sets(level))
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
