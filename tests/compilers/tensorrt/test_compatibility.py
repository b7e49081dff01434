"""What is said of an engine before it is loaded: its header, and which GPU and release may have it."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import Any

import pytest

from tests.compilers.tensorrt import workers
from trtbuild.compilers.cuda import CudaFacts
from trtbuild.compilers.tensorrt import addresses, compatibility, header


def start(release: bytes = b"\x01\x07\x01\x74", bits: int = 8, size: int = 5000) -> bytes:
    return struct.pack("<4sIqq4s4sq", b"vtrt", 0, 2, size, release, b"vtrt", bits).ljust(header.SIZE, b"\0")


def test_a_header_says_release_capabilities_and_size() -> None:
    assert header.read(start()) == header.EngineHeader("1.7.1.116", ("8.9",), 5000)
    assert header.read(start(bits=0x7E)) == header.EngineHeader("1.7.1.116", header.CAPABILITIES[1:], 5000)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        start()[:-1],
        b"ptrt" + start()[4:],
        start().replace(b"vtrt\x08", b"vtrs\x08"),
        start(bits=1 << 40),
    ],
    ids=["empty", "short", "another magic", "another second magic", "unknown bits"],
)
def test_what_is_laid_out_otherwise_is_not_described(given: bytes) -> None:
    assert header.read(given) is None


def engine(capability: str | None = "8.9", compiler: str = "tensorrt_rtx", **options: Any) -> dict[str, Any]:
    return {"compiler": compiler, "compute_capability": capability, "release": "10.9.1", "options": options}


def refusals(manifest: dict[str, Any], gpu: CudaFacts, release: str) -> list[str | None]:
    return [compatibility.gpu_refusal(manifest, gpu), compatibility.release_refusal(manifest, release)]


RTX4070, RTX5090, T4 = CudaFacts("RTX 4070", "8.9"), CudaFacts("RTX 5090", "12.0"), CudaFacts("T4", "7.5")
RELEASE = "10.9.1"


@pytest.mark.parametrize(
    "manifest, gpu, release",
    [
        (engine(), RTX4070, RELEASE),
        (engine(None), RTX5090, RELEASE),
        (engine(hardware_compatibility="ampere_plus"), RTX5090, RELEASE),
        (engine(hardware_compatibility="same_compute_capability"), RTX4070, RELEASE),
        (engine(version_compatible=True), RTX4070, "10.10.0"),
    ],
)
def test_an_engine_may_be_loaded_where_it_fits(manifest: dict[str, Any], gpu: CudaFacts, release: str) -> None:
    assert refusals(manifest, gpu, release) == [None, None]


@pytest.mark.parametrize(
    "manifest, gpu, release, words",
    [
        (engine(), RTX5090, RELEASE, "8.9, and the RTX 5090 here has 12.0"),
        (engine(None), T4, RELEASE, "from compute capability 8.0 on, and the T4 here has 7.5"),
        (engine(hardware_compatibility="ampere_plus"), T4, RELEASE, "the T4 here has 7.5"),
        (engine(hardware_compatibility="same_compute_capability"), RTX5090, RELEASE, "has 12.0"),
        (engine(), RTX4070, "10.10.0", "release 10.9.1, and 10.10.0 is installed"),
        (engine(version_compatible=True), RTX4070, "10.8.3", "10.8.3 here is older"),
    ],
)
def test_an_engine_is_refused_with_the_reason(
    manifest: dict[str, Any], gpu: CudaFacts, release: str, words: str
) -> None:
    (told,) = filter(None, refusals(manifest, gpu, release))
    assert words in told


def test_what_is_mapped_later_lies_below_the_ceiling() -> None:
    code = """
import ctypes, mmap, threading
from trtbuild.compilers.tensorrt import addresses
addresses.fill_above()
def address(): return ctypes.addressof(ctypes.c_char.from_buffer(mmap.mmap(-1, 1 << 20)))
print(address())
libc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p
addresses.run_in_new_arena(lambda: print(libc.malloc(100)))
"""
    environment = {"PYTHONPATH": f"{workers.ROOT}:{workers.ROOT / 'store'}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    mapped, allocated = (int(line) for line in done.stdout.split())
    assert mapped < addresses.CEILING
    assert allocated < addresses.CEILING


def test_a_failure_in_the_new_arena_is_the_callers() -> None:
    def fail() -> None:
        raise ValueError("within")

    with pytest.raises(ValueError, match="within"):
        addresses.run_in_new_arena(fail)
