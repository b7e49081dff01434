"""What holds of all sizes of memory, and of all values of CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trtbuild.errors import InputError
from trtbuild.targets.normal import (
    GIB,
    MIB,
    SOLD_GB,
    cuda_release,
    memory_gb,
    mig_memory_gb,
    mig_profile,
    sm_count,
)
from trtbuild.targets.nvml import GpuReport, Slice
from trtbuild.targets.visible import visible

SIZES = st.integers(1, 600 * GIB)


@given(SIZES)
def test_memory_holds_what_is_reported(reported: int) -> None:
    size = memory_gb(reported)
    assert size * GIB >= reported
    assert size in SOLD_GB or size == -(-reported // GIB)


@given(st.sampled_from(SOLD_GB), st.integers(0, 100))
def test_a_reserve_of_up_to_a_twentieth_makes_no_other_size(size: int, share: int) -> None:
    """Up to the next smaller size that is sold, or a tenth, whichever is nearer."""
    reported = size * GIB - size * GIB * share // 2000
    smaller = max((each for each in SOLD_GB if each < size), default=0)
    if reported > smaller * GIB:
        assert memory_gb(reported) == size


@given(SIZES, SIZES)
def test_more_memory_is_never_a_smaller_size(one: int, other: int) -> None:
    assert memory_gb(min(one, other)) <= memory_gb(max(one, other))


@given(st.integers(0, 20000 // 64))
def test_sms_times_their_cores_are_the_cores(sms: int) -> None:
    assert sm_count(sms * 128, (8, 9)) == (sms or None)
    assert sm_count(sms * 64, (8, 0)) == (sms or None)
    assert sm_count(sms * 128 + 1, (9, 0)) is None


@given(st.integers(0, 30), st.integers(0, 9))
def test_cuda_releases(major: int, minor: int) -> None:
    assert cuda_release(1000 * major + 10 * minor) == f"{major}.{minor}"


@given(st.sampled_from([(24, 4), (40, 7), (80, 7), (96, 4)]), st.data())
def test_a_profile_without_a_name_is_eighths_of_the_gpu(gpu: tuple[int, int], data: st.DataObject) -> None:
    whole, _ = gpu
    eighths = data.draw(st.integers(1, 8))
    reserve = data.draw(st.integers(0, 200))
    profile = mig_profile("NVIDIA", (1, 1), whole * 1024 * eighths // 8 - reserve, whole * GIB)
    assert mig_memory_gb(profile) == (whole * eighths + 4) // 8


def device(index: int, kind: str, slices: int | None = None) -> GpuReport:
    uuid = f"GPU-{index:08x}-0000"
    cut = None
    if slices is not None:
        cut = tuple(
            Slice((f"MIG-{index:04x}{nth:04x}-0000", f"MIG-{uuid}/{nth}/0"), "1g.10gb", 9984, 16)
            for nth in range(slices)
        )
    return GpuReport(index, uuid, kind, 80 * GIB - 500 * MIB, (9, 0), 16896, cut)


MACHINES = st.lists(
    st.tuples(st.sampled_from(["A", "B"]), st.one_of(st.none(), st.integers(0, 3))), min_size=1, max_size=6
).map(lambda kinds: [device(index, *kind) for index, kind in enumerate(kinds)])
WORDS = st.one_of(
    st.integers(-2, 8).map(str),
    st.sampled_from(["", " 1", "1x", "GPU-", "GPU-0", "MIG-", "MIG-GPU-", "all", "none", "NoDevFiles", "٣", "0x1"]),
    st.integers(0, 7).map(lambda index: f"GPU-{index:08x}"),
    st.integers(0, 7).map(lambda index: f"MIG-{index:04x}0000"),
)
SETTINGS = st.lists(WORDS, min_size=1, max_size=5)
PCI = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def seen(devices: list[GpuReport], words: list[str]) -> tuple:
    return visible(devices, {**PCI, "CUDA_VISIBLE_DEVICES": ",".join(words)})


@given(MACHINES, SETTINGS)
def test_what_is_visible_is_there_and_once(devices: list[GpuReport], words: list[str]) -> None:
    found = seen(devices, words)
    assert len(set(found)) == len(found)
    for at, nth in found:
        assert 0 <= at < len(devices)
        assert nth is None or nth < len(devices[at].slices or ())


@given(MACHINES, SETTINGS, SETTINGS)
def test_nothing_after_what_is_not_there_counts(devices: list[GpuReport], words: list[str], more: list[str]) -> None:
    first = words[0].strip()
    stop = "GPU-ffff" if first.startswith(("GPU-", "MIG-")) else "-1"
    assert seen(devices, [*words, stop, *more]) == seen(devices, [*words, stop])
    assert seen(devices, [stop, *words]) == ()


@given(MACHINES, SETTINGS)
def test_a_longer_list_begins_with_the_shorter_one_or_hides_all(devices: list[GpuReport], words: list[str]) -> None:
    for length in range(1, len(words)):
        longer = seen(devices, words[: length + 1])
        shorter = seen(devices, words[:length])
        assert longer[: len(shorter)] == shorter or longer == ()


@given(MACHINES, st.data())
def test_each_gpu_is_named_by_its_whole_uuid_and_by_its_place(devices: list[GpuReport], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(devices))))
    expected = tuple((at, None) for at in order)
    assert seen(devices, [devices[at].uuid for at in order]) == expected
    assert seen(devices, [str(at) for at in order]) == expected
    assert visible(devices, {}) == tuple((at, None) for at in range(len(devices)))


@given(MACHINES, SETTINGS)
def test_without_an_order_it_is_the_same_or_refused_with_the_mend(devices: list[GpuReport], words: list[str]) -> None:
    setting = ",".join(words)
    try:
        found = visible(devices, {"CUDA_VISIBLE_DEVICES": setting})
    except InputError as error:
        assert error.option == f"CUDA_VISIBLE_DEVICES={setting}"
        assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in (error.hint or "")
        assert len({each.kind for each in devices}) > 1
    else:
        assert found == seen(devices, words)
