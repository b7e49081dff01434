"""The CPU at hand, by names that say the same on two machines of a kind."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from trtbuild import targets
from trtbuild.errors import InputError


def test_the_cpu_of_this_machine() -> None:
    target = targets.resolve("cpu")
    assert target == targets.detect_cpu()
    assert (target.kind, target.arch) == ("cpu", platform.machine())
    assert target.level.startswith(("x86_64", "aarch64", "armv8", "armv9"))


def test_auto_is_the_same_target() -> None:
    assert targets.resolve("auto") == targets.resolve("cpu")


def test_the_level_is_what_the_processor_can_do() -> None:
    with open("/proc/cpuinfo", encoding="ascii") as stream:  # noqa: PTH123  # one line of it
        flags = next((line.split() for line in stream if line.startswith("flags")), [])
    if not flags:
        pytest.skip("not an x86 machine")
    level = targets.detect_cpu().level
    assert (level == "x86_64_v4") == {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}.issubset(
        flags
    )
    assert (level in ("x86_64_v3", "x86_64_v4")) == {"avx2", "bmi2", "fma"}.issubset(flags)


def test_an_unknown_target() -> None:
    with pytest.raises(InputError) as caught:
        targets.resolve("h100")
    assert caught.value.option == "target.name=h100"
    assert "auto, cpu" in (caught.value.hint or "")


def test_importing_sources_and_targets_loads_no_client() -> None:
    code = (
        "import sys, trtbuild.sources, trtbuild.targets; "
        "print([m for m in ('huggingface_hub', 'numpy', 'torch', 'httpx2', 'pip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
