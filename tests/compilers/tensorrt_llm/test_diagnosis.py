"""A recorded failure of each kind: the error names the true cause and the mend, and none of the warnings beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtbuild.compilers.tensorrt_llm.diagnosis import failure

RECORDED = Path(__file__).parent / "recorded"

#: file -> status, words of the error, words of the mend
FAILURES = {
    "host_memory": (-9, ["was killed", "the host's memory (not the GPU's)"], ["dmesg", "swap"]),
    "gpu_memory": (1, ["the GPU ran out of memory"], ["profile.max_num_tokens", "parallel.tp=2"]),
    "gpu_memory_sized": (1, ["the GPU ran out of memory", "16654532608 bytes"], ["profile.max_num_tokens"]),
    "gpu_memory_torch": (1, ["the GPU ran out of memory", "Tried to allocate 2"], ["nvidia-smi"]),
    "other_gpu": (1, ["compute capability 8.9, and this GPU has 9.0"], ["target=auto"]),
    "other_tensorrt": (1, ["another TensorRT (serialization 228)", "226"], ["image that built it"]),
    "plugin_length": (
        1,
        ["a plugin of the plan has other fields", "another release of TensorRT-LLM"],
        ["compiler.version"],
    ),
    "tactics": (1, ["Could not find any implementation for node"], []),
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_cause_and_the_mend_are_named(name: str) -> None:
    status, words, mend = FAILURES[name]
    lines = (RECORDED / f"{name}.txt").read_text().splitlines()
    error = failure("trtllm-build", status, lines)
    assert error.exit_code == 1
    for word in words:
        assert word in error.message
    for word in mend:
        assert word in (error.hint or "")
    assert "timing cache" not in error.message
    assert "Skipping tactic" not in error.message


def test_a_kill_is_told_by_the_word_killed_too() -> None:
    """A shell between us and the tool hides the signal: 137, and the kernel's word in the log."""
    lines = (RECORDED / "host_memory.txt").read_text().splitlines()
    assert "was killed" in failure("trtllm-build", 137, lines).message
    assert "was killed" in failure("trtllm-build", 137, []).message


def test_a_limit_of_a_container_is_told_apart_from_a_full_machine() -> None:
    error = failure("trtllm-build", -9, [], limited=True)
    assert "its container took more than the memory that it is allowed" in error.message
    assert error.option == "executor.memory_gb"


def test_a_missing_rank_is_named_by_its_file() -> None:
    said = ["FileNotFoundError: [Errno 2] No such file or directory: '/tmp/checkpoint/rank1.safetensors'"]
    assert "rank1.safetensors is missing" in failure("trtllm-build", 1, said).message


def test_what_no_row_knows_is_told_in_the_tools_own_words() -> None:
    error = failure("trtllm-build", 3, ["[TRT-LLM] [I] fine", "ValueError: something new", "at line 3"])
    assert error.message == "trtllm-build ended with exit code 3: ValueError: something new"
    assert failure("trtllm-build", -11, []).message == "trtllm-build ended with signal 11"


def test_every_recorded_log_is_looked_at() -> None:
    assert {path.stem for path in RECORDED.glob("*.txt")} == set(FAILURES)
