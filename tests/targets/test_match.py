"""What `target` means on machines with several GPUs, with slices, with a broken driver, and with none."""

from __future__ import annotations

import pytest

from tests.targets.conftest import Machines

H100 = {"name": "H100 80GB HBM3", "memory_gb": 80, "compute_capability": "9.0", "sm_count": 132, "mig": None}
CUSTOM = (
    "target.gpu=NVIDIA L20",
    "target.memory_gb=48",
    "target.compute_capability=8.9",
    "target.sm_count=92",
    "target.arch=x86_64",
)


def refused(answer: dict, option: str, *words: str) -> None:
    assert answer.get("option") == option, answer
    said = f"{answer['error']} {answer['hint']}"
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"


# Several GPUs


def test_equal_gpus_are_one_target_with_their_number(machines: Machines) -> None:
    target = machines.resolve("h100_sxm", "target=auto")
    assert (target["gpu"], target["gpus"], target["name"]) == (H100, 8, "h100_80gb_hbm3")
    assert machines.resolve("h100_sxm", "target=h100_sxm")["gpus"] == 8
    assert machines.resolve("h100_sxm", "target=h100_sxm", "target.device=3")["gpus"] == 1
    assert machines.resolve("h100_sxm", "target=h100_sxm", "target.gpus=2")["gpus"] == 2


def test_a_mixed_machine_needs_one_named(machines: Machines) -> None:
    refused(
        machines.resolve("mixed", "target=auto"),
        "target=auto",
        *(
            "several kinds",
            "0: GeForce RTX 4090 (24 GB)",
            "2: GeForce RTX 5090 (32 GB)",
            "3: RTX A6000 (48 GB)",
        ),
        "target.device=0",
    )
    assert machines.resolve("mixed", "target=rtx4090")["gpus"] == 2
    assert machines.resolve("mixed", "target=rtx5090")["driver"] == "570.133.04"
    assert machines.resolve("mixed", "target.device=2")["gpu"]["name"] == "GeForce RTX 5090"
    assert machines.resolve("mixed", "target.gpu=NVIDIA RTX A6000")["gpu"]["sm_count"] == 84
    assert machines.resolve("mixed", "target.compute_capability=8.9")["gpus"] == 2


def test_a_device_that_is_not_what_is_asked(machines: Machines) -> None:
    refused(machines.resolve("mixed", "target.device=7"), "target.device=7", "GPU 7 is not here", "3: RTX A6000")
    refused(
        machines.resolve("mixed", "target=rtx4090", "target.device=2"),
        "target.device=2",
        "GPU 2 is not GeForce RTX 4090",
    )
    refused(machines.resolve("none", "target=h100_sxm", "target.device=0"), "target.device=0", "no NVIDIA GPU")


def test_the_hardware_at_hand(machines: Machines) -> None:
    assert machines.at_hand("none") == {"none": True}
    assert machines.at_hand("not_loaded") == {"none": True}
    assert machines.at_hand("l4")["gpu"]["name"] == "L4"
    assert machines.at_hand("mixed", device=3)["gpu"]["name"] == "RTX A6000"
    assert "several kinds" in machines.at_hand("mixed")["error"]
    assert "version mismatch" in machines.at_hand("mismatch")["error"]


# CUDA_VISIBLE_DEVICES


@pytest.mark.parametrize(
    ("setting", "name", "count"),
    [
        ("GPU-cccc", "GeForce RTX 5090", 1),
        ("GPU-aaaa", "no GPU: the prefix is that of two", 0),
        ("GPU-aaaaaaaa,GPU-aaaabbbb", "GeForce RTX 4090", 2),
        ("GPU-dddddddd-3333-3333-3333-333333333333", "RTX A6000", 1),
        ("GPU-dddd,GPU-9999,GPU-cccc", "RTX A6000", 1),
        ("GPU-dddd,GPU-dddd", "none", 0),
        ("", "none", 0),
        ("-1", "none", 0),
        ("NoDevFiles", "none", 0),
        ("9", "none", 0),
    ],
)
def test_visible_devices(machines: Machines, setting: str, name: str, count: int) -> None:
    target = machines.resolve("mixed", "target=auto", env={"CUDA_VISIBLE_DEVICES": setting})
    if count:
        assert (target["gpu"]["name"], target["gpus"]) == (name, count)
    else:
        refused(target, "target=auto", f"CUDA_VISIBLE_DEVICES={setting}", "target=rtx4070")


def test_numbers_are_refused_where_cuda_counts_otherwise(machines: Machines) -> None:
    env = {"CUDA_VISIBLE_DEVICES": "2"}
    refused(
        machines.resolve("mixed", "target=auto", env=env),
        "CUDA_VISIBLE_DEVICES=2",
        *("fastest first", "CUDA_DEVICE_ORDER=PCI_BUS_ID", "UUID"),
    )
    told = {**env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert machines.resolve("mixed", "target=auto", env=told)["gpu"]["name"] == "GeForce RTX 5090"
    # All of them in another order are still all of them, and on a machine of equal GPUs no order matters.
    refused(machines.resolve("mixed", env={"CUDA_VISIBLE_DEVICES": "3,2,1,0"}), "target=auto", "several kinds")
    assert machines.resolve("h100_sxm", env={"CUDA_VISIBLE_DEVICES": "2,3"})["gpus"] == 2


def test_a_hidden_gpu_is_not_here(machines: Machines) -> None:
    target = machines.resolve("h100_sxm", "target=h100_sxm", env={"CUDA_VISIBLE_DEVICES": ""})
    assert target["origins"]["driver"] == "fleet=default"
    assert "CUDA_VISIBLE_DEVICES=" in target["here"]


# MIG


def test_a_slice_is_a_target_of_its_own(machines: Machines) -> None:
    target = machines.resolve("mig", "target=auto")
    assert target["gpu"] == {
        "name": "A100-SXM4-80GB",
        "memory_gb": 20,
        "compute_capability": "8.0",
        "sm_count": 28,
        "mig": "2g.20gb",
    }
    assert target["gpus"] == 1  # a process sees one slice
    assert target["name"] == "a100_sxm4_80gb_mig_2g_20gb"
    whole = machines.resolve("mig", "target=a100_80gb")
    assert (whole["gpu"]["mig"], whole["origins"]["driver"]) == (None, "fleet=default")
    assert "3 x A100-SXM4-80GB MIG 2g.20gb (20 GB)" in whole["here"]
    asked = ("target=a100_80gb", "target.mig=2g.20gb", "target.memory_gb=20", "target.sm_count=28")
    assert machines.resolve("mig", *asked)["origins"]["driver"] == "detected on this machine"
    laptop = machines.resolve("none", *asked, "target.driver=470.82.01", "target.cuda=11.4")
    assert laptop["gpu"] == target["gpu"]


@pytest.mark.parametrize("setting", ["MIG-222", "MIG-GPU-eeeeeeee-1111-1111-1111-111111111111/5/0", "GPU-eeee", "0"])
def test_a_visible_slice(machines: Machines, setting: str) -> None:
    assert machines.resolve("mig", env={"CUDA_VISIBLE_DEVICES": setting})["gpu"]["mig"] == "2g.20gb"


def test_slices_of_two_kinds_need_one_named(machines: Machines) -> None:
    refused(machines.resolve("two_profiles"), "target=auto", "MIG 1g.10gb (10 GB)", "MIG 3g.40gb (40 GB)")
    assert machines.resolve("two_profiles", "target.mig=3g.40gb")["gpu"]["sm_count"] == 60
    assert machines.resolve("two_profiles", env={"CUDA_VISIBLE_DEVICES": "MIG-1"})["gpu"]["mig"] == "1g.10gb"


def test_mig_without_slices_is_no_gpu(machines: Machines) -> None:
    refused(machines.resolve("no_slices"), "target=auto", "MIG is on, and there is no slice")


# Drivers


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("mismatch", ("NVML/RM version mismatch", "restart the machine")),
        ("no_permission", ("Insufficient Permissions", "--gpus all")),
        ("unknown", ("Unknown Error", "nvidia-smi")),
        ("one_lost", ("GPU 1", "GPU is lost", "Xid")),
    ],
)
def test_a_broken_driver_is_an_error_where_a_gpu_is_asked_for(machines: Machines, machine: str, words: tuple) -> None:
    refused(machines.resolve(machine, "target=auto"), "target=auto", *words)
    refused(machines.resolve(machine, "target=auto", kinds=("cpu", "cuda")), "target=auto", *words)
    assert machines.resolve(machine, "target=auto", kinds=("cpu",))["kind"] == "cpu"
    assert machines.resolve(machine, "target=cpu", kinds=("cpu", "cuda"))["kind"] == "cpu"
    named = machines.resolve(machine, "target=h100_sxm")  # need not be here
    assert named["gpu"] == H100
    assert words[0] in named["here"]


@pytest.mark.parametrize("machine", ["not_loaded", "none"])
def test_no_gpu(machines: Machines, machine: str) -> None:
    refused(
        machines.resolve(machine),
        "target=auto",
        "no such NVIDIA GPU here",
        "target=rtx4070",
        "target=h100_sxm",
    )
    assert machines.resolve(machine, kinds=("cpu", "cuda"))["kind"] == "cpu"
    assert machines.resolve("l4", kinds=("cpu", "cuda"))["kind"] == "cuda"


def test_gpus_that_this_user_may_not_use_are_left_out(machines: Machines) -> None:
    target = machines.resolve("one_forbidden")
    assert (target["gpu"]["name"], target["gpus"]) == ("L4", 1)
    assert machines.resolve("one_forbidden", "target.device=1")["gpu"]["name"] == "L4"


def test_a_container_without_the_cuda_library(machines: Machines) -> None:
    assert machines.resolve("no_cuda_library")["cuda"] == "13.0"
    refused(machines.resolve("no_cuda_version"), "target.cuda", "target.cuda is required")
    assert machines.resolve("no_cuda_version", "target.cuda=13.0")["cuda"] == "13.0"


def test_what_a_driver_does_not_tell_may_be_given(machines: Machines) -> None:
    refused(
        machines.resolve("jetson"),
        "target.memory_gb",
        *("NVML does not tell it of the Orin (nvgpu)", "target.memory_gb, target.sm_count are missing"),
    )
    given = machines.resolve("jetson", "target.memory_gb=64", "target.sm_count=16")
    assert (given["gpu"]["memory_gb"], given["gpu"]["sm_count"], given["driver"]) == (64, 16, "540.4.0")
    assert (given["origins"]["sm_count"], given["origins"]["gpu"]) == (
        "target.sm_count=",
        "detected on this machine",
    )


# GPUs that are not here, and their driver


def test_the_driver_of_a_gpu_that_is_not_here_is_the_fleets(machines: Machines) -> None:
    target = machines.resolve("none", "target=l4")
    assert (target["driver"], target["cuda"]) == ("580.95.05", "13.0")
    assert target["origins"]["driver"] == target["origins"]["cuda"] == "fleet=default"
    assert machines.resolve("none", "target=l4", "fleet.driver=580.105.08")["driver"] == "580.105.08"
    refused(machines.resolve("none", "target=l4", "fleet.driver=null"), "target.driver", "fleet=default")


def test_a_team_has_a_fleet_and_targets_of_its_own(machines: Machines, tmp_path) -> None:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "ours.yaml").write_text(
        'defaults: [schema, _self_]\nname: ours\ndriver: "550.120"\ncuda: "12.4"\n'
    )
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "our_l20.yaml").write_text(
        "defaults: [schema, _self_]\nname: our_l20\nkind: cuda\narch: x86_64\ngpu: L20\nmemory_gb: 48\n"
        'compute_capability: "8.9"\nsm_count: 92\n'
    )
    target = machines.resolve("none", "--config-dir", str(tmp_path), "target=our_l20", "fleet=ours")
    assert (target["name"], target["driver"], target["cuda"]) == ("our_l20", "550.120", "12.4")
    assert (target["gpu"]["name"], target["origins"]["gpu"]) == ("L20", "target=our_l20")
    assert target["origins"]["driver"] == "fleet=ours"


def test_an_option_wins_over_the_machine_and_the_fleet(machines: Machines) -> None:
    for machine in ("l4", "none"):
        target = machines.resolve(machine, "target=l4", "target.driver=550.120", "target.cuda=12.4")
        assert (target["driver"], target["cuda"]) == ("550.120", "12.4")
        assert target["origins"]["driver"] == "target.driver="
    refused(
        machines.resolve("none", "target=l4", "target.driver=550.120"),
        "target.cuda",
        "another branch than 580.95.05",
    )
    assert machines.resolve("none", "target=l4", "target.driver=580.105.08")["cuda"] == "13.0"
    assert machines.resolve("l4", "target=l4", "target.cuda=12.4")["origins"]["cuda"] == "target.cuda="


def test_a_gpu_of_ones_own_by_options(machines: Machines) -> None:
    target = machines.resolve("none", *CUSTOM)
    assert (target["gpu"]["name"], target["gpu"]["sm_count"], target["name"]) == ("L20", 92, "l20")
    assert target["origins"]["sm_count"] == "target.sm_count="
    for missing in CUSTOM:
        given = [word for word in CUSTOM if word != missing]
        refused(machines.resolve("none", *given), missing.partition("=")[0], "no GPU here is", "missing")


def test_a_target_that_says_nothing(machines: Machines, tmp_path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "ours.yaml").write_text("defaults: [schema, _self_]\nname: ours\n")
    answer = machines.resolve("none", "--config-dir", str(tmp_path), "target=ours", kinds=("cpu",))
    refused(answer, "target.kind", "target=ours does not say which hardware it is")


# Words


def test_the_plans_words(machines: Machines) -> None:
    assert machines.resolve("none", "target=h100_sxm")["words"].splitlines() == [
        "h100_sxm: H100 80GB HBM3, 80 GB, compute capability 9.0, 132 SMs, x86_64 (target=h100_sxm)",
        "          driver 580.95.05, CUDA 13.0 (fleet=default); not here: this machine has no NVIDIA GPU "
        "(NVML lists none that this user may use)",
    ]
    here, driver = machines.resolve("h100_sxm", "target=h100_sxm", "target.cuda=12.6")["words"].splitlines()
    assert here.endswith("(detected on this machine), 8 GPUs")
    assert driver.strip() == ("driver 550.54.15 (detected on this machine), CUDA 12.6 (target.cuda=); here: 8 of them")
    assert (
        "not here: this machine has 2 x GeForce RTX 4090 (24 GB), " in machines.resolve("mixed", "target=l4")["words"]
    )
    assert machines.resolve("none", "target=cpu", kinds=("cpu",))["words"].startswith("cpu: ")


# Bad input


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("target.compute_capability=9", "target.compute_capability"),
        ("target.compute_capability=sm_90", "target.compute_capability"),
        ("target.driver=latest", "target.driver"),
        ("target.driver=580.x", "target.driver"),
        ("target.cuda=13", "target.cuda"),
        ("target.mig=1g", "target.mig"),
        ("target.sm_count=0", "target.sm_count"),
        ("target.memory_gb=-80", "target.memory_gb"),
        ("target.gpus=0", "target.gpus"),
        ("target.device=-1", "target.device"),
        ("target.gpu=' '", "target.gpu"),
        ("fleet.driver=new", "fleet.driver"),
        ("fleet.cuda=twelve", "fleet.cuda"),
        ("target.level=x86_64_v3", "target.level=x86_64_v3"),
    ],
)
def test_values_that_cannot_be_meant(machines: Machines, words: str, option: str) -> None:
    refused(machines.resolve("none", "target=h100_sxm", words), option)


def test_a_slice_has_the_memory_of_its_profile(machines: Machines) -> None:
    answer = machines.resolve("none", "target=h100_sxm", "target.mig=1g.10gb")
    refused(answer, "target.memory_gb=80", "1g.10gb has 10 GB", "target.sm_count")


def test_a_cpu_has_no_gpu(machines: Machines) -> None:
    refused(
        machines.resolve("none", "target=cpu", "target.sm_count=10"),
        "target.sm_count",
        "a CPU has no sm_count",
    )


@pytest.mark.parametrize("release", ["550.120", "384.130", "580", "580.95.05"])
def test_a_release_is_taken_to_the_letter(machines: Machines, release: str) -> None:
    target = machines.resolve("none", "target=l4", f"target.driver={release}", "target.cuda=12.10")
    assert (target["driver"], target["cuda"]) == (release, "12.10")
