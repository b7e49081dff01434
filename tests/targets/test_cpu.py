"""CPUs by names that say the same on two machines of a kind: the one at hand, and those that are named."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from trtbuild import targets
from trtbuild.errors import InputError
from trtbuild.targets import Asked


def resolved(name: str, **facts: object) -> targets.Target:
    return targets.resolve(Asked(name, **facts), {"cpu"})


def test_the_cpu_of_this_machine() -> None:
    target = resolved("cpu")
    assert target == targets.at_hand("cpu")
    assert (target.kind, target.arch, target.name) == ("cpu", platform.machine(), "cpu")
    assert str(target.level).startswith(("x86_64", "aarch64", "armv8", "armv9"))


def test_auto_is_the_same_target() -> None:
    assert resolved("auto") == resolved("cpu")


def test_the_level_is_what_the_processor_can_do() -> None:
    with open("/proc/cpuinfo", encoding="ascii") as stream:  # noqa: PTH123  # one line of it
        flags = next((line.split() for line in stream if line.startswith("flags")), [])
    if not flags:
        pytest.skip("not an x86 machine")
    level = resolved("cpu").level
    assert (level == "x86_64_v4") == {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}.issubset(flags)
    assert (level in ("x86_64_v3", "x86_64_v4")) == {"avx2", "bmi2", "fma"}.issubset(flags)


@pytest.mark.parametrize(("level", "arch"), [("x86_64_v3", "x86_64"), ("x86_64_v4", "x86_64"), ("aarch64", "aarch64")])
def test_a_level_that_is_named_need_not_be_here(level: str, arch: str) -> None:
    target = resolved("ours", kind="cpu", level=level)
    assert (target.name, target.arch, target.level, target.microarchitecture) == ("ours", arch, level, level)
    runs = arch == platform.machine() and level != "x86_64_v4"
    assert not runs or target.here == "runs here"
    assert arch == platform.machine() or str(target.here).startswith("not here")


@pytest.mark.parametrize(
    ("facts", "option"),
    [
        ({"level": "x86_64_v9"}, "target.level=x86_64_v9"),
        ({"level": "skylake_avx512"}, "target.level=skylake_avx512"),  # not generic
        ({"level": "ppc64le"}, "target.level=ppc64le"),
        ({"level": "x86_64_v3", "arch": "aarch64"}, "target.level=x86_64_v3"),
        ({"sm_count": 3, "kind": "cpu"}, "target.sm_count"),
    ],
)
def test_cpus_that_cannot_be_meant(facts: dict, option: str) -> None:
    with pytest.raises(InputError) as caught:
        resolved("cpu", **facts)
    assert caught.value.option == option


def test_another_architecture_than_this_machines() -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    with pytest.raises(InputError) as caught:
        resolved("auto", arch=other)
    assert caught.value.option == f"target.arch={other}"
    assert "target=cpu_arm64" in (caught.value.hint or "")


def test_importing_sources_and_targets_loads_no_client() -> None:
    code = (
        "import sys, trtbuild.sources, trtbuild.targets; print([m for m in "
        "('huggingface_hub', 'numpy', 'torch', 'httpx2', 'pip', 'pynvml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
