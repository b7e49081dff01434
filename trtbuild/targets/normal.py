"""What NVML reports of a GPU, brought to the facts that are equal on all GPUs of one SKU, whatever the driver."""

from __future__ import annotations

import re

GIB = 1 << 30
MIB = 1 << 20

#: GB that NVIDIA's GPUs are sold with, from their datasheets; those with MIG are also listed in
#: https://docs.nvidia.com/datacenter/tesla/mig-user-guide/supported-gpus.html
SOLD_GB = (
    *(2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 72, 80, 84, 94, 96),
    *(128, 141, 144, 180, 186, 192, 252, 288),
)

#: FP32 lanes ("CUDA cores") of one SM by compute capability, where they are not 128. Sources:
#: https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#arithmetic-instructions (32-bit add per clock
#: and SM) and https://github.com/NVIDIA/cuda-samples/blob/master/Common/helper_cuda.h (_ConvertSMVer2Cores)
_SIXTY_FOUR = {(6, 0), (7, 0), (7, 2), (7, 5), (8, 0)}


def sku_name(reported: str) -> str:
    """A GPU's name without its maker: old drivers say "Tesla T4" and "GeForce RTX 3090", new ones "NVIDIA T4"."""
    words = " ".join(reported.split())
    return re.sub(r"^(NVIDIA |Tesla )+", "", words)


def memory_gb(reported: int) -> int:
    """The GB that a GPU is sold with, of the bytes that NVML reports.

    A driver's reserve and ECC take up to a tenth, and how much differs between drivers; that does not make another
    SKU. So it is the smallest size that is sold which holds what is reported, if a tenth of it is missing at most;
    else the GiB, rounded up. In MiB, as nvidia-smi prints them: H100 81559 -> 80, H200 143771 -> 141, L4 23034 -> 24,
    T4 15360 -> 16, L40S 46068 -> 48, B200 183359 -> 180, GB200 189471 -> 186, H100 NVL 95830 -> 94.
    """
    for size in SOLD_GB:
        if reported <= size * GIB and 10 * reported >= 9 * size * GIB:
            return size
    return max(1, -(-reported // GIB))


def sm_count(cores: int, capability: tuple[int, int]) -> int | None:
    """SMs of a GPU with so many CUDA cores; None where that is not known."""
    if capability < (5, 0):
        return None  # Kepler has 192 a SM, and no compiler here builds for it
    each = 64 if capability in _SIXTY_FOUR else 128
    return cores // each if cores > 0 and cores % each == 0 else None


def cuda_release(reported: int) -> str:
    """13000 -> "13.0"; 12080 -> "12.8"."""
    return f"{reported // 1000}.{reported % 1000 // 10}"


def mig_profile(name: str, slices: tuple[int, int], memory_mib: int, whole: int) -> str:
    """A slice's profile: what its name ends with ("A100-SXM4-80GB MIG 2g.20gb"), or as NVIDIA's tools make it up.

    `slices` are those of the GPU instance and of the compute instance, `whole` the bytes of the GPU: the name holds
    the slice's eighths of the GPU's GiB (as in https://github.com/NVIDIA/go-nvlib, package device).
    """
    told = re.search(r"\bMIG (\S+)$", name)
    if told:
        return told[1]
    instance, compute = slices
    eighths = -(-8 * memory_mib * MIB // whole)
    size = (2 * eighths * -(-whole // GIB) + 8) // 16  # rounded half up
    share = "" if compute == instance else f"{compute}c."
    return f"{share}{instance}g.{size}gb"


def mig_memory_gb(profile: str) -> int | None:
    """20 of "2g.20gb". What NVML reports of a slice differs by driver (B200's 1g.23gb: 20.5 and 22 GiB)."""
    size = re.search(r"\.(\d+)gb", profile)
    return int(size[1]) if size else None
