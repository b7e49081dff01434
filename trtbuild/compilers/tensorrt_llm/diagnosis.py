"""Finds the cause of a tool's failure in its log, and a hint on how to fix it.

Each cause was recorded from a real failure: `tests/compilers/tensorrt_llm/recorded` has the logs, with their sources.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trtbuild.errors import BuildError


@dataclass(frozen=True)
class Cause:
    """A pattern in a log, and its meaning; `words` and `hint` may name groups of `pattern`, as in {want}."""

    pattern: str
    words: str
    hint: str
    option: str | None = None


#: In order of certainty: the first that matches any line is the cause.
CAUSES = (
    Cause(
        r"expecting compute (?P<want>[\d.]+) got compute (?P<got>[\d.]+)",
        "the plan is for compute capability {got}, and this GPU has {want}",
        "build it on such a GPU, or name the one that is here: target=auto; CUDA_VISIBLE_DEVICES may have chosen "
        "another",
        "target",
    ),
    Cause(
        r"Version tag does not match.*Current Version: (?P<here>\d+), Serialized Engine Version: (?P<there>\d+)",
        "the plan was made by another TensorRT (serialization {there}) than the one here (serialization {here})",
        "use one release for both: take the image that built it, or build again with this one (refresh=true)",
        "compiler.packages.tensorrt",
    ),
    Cause(
        r"Version tag does not match",
        "the plan was made by another release of TensorRT than the one here",
        "use one release for both: take the image that built it, or build again with this one (refresh=true)",
        "compiler.packages.tensorrt",
    ),
    Cause(
        r"Assertion failed: d == a \+ length|Expected length .*real length",
        "a plugin of the plan has other fields than this TensorRT-LLM's: another release of TensorRT-LLM built it",
        "use one release for both: compiler.version names it, and the engine's config.json says which one built it",
        "compiler.version",
    ),
    Cause(
        r"MPI size.*(?:does not match|must match|equal)|mpiSize == |world.size.*mpi",
        "the engine is for another number of ranks than were started",
        "parallel.tp x parallel.pp x compiler.cp_size ranks belong to it",
        "parallel.tp",
    ),
    Cause(
        r"torch\.(?:cuda\.)?OutOfMemoryError: (?P<said>CUDA out of memory\.[^.]*)",
        "the GPU ran out of memory: {said}",
        "nvidia-smi shows what else uses it; otherwise share the model (parallel.tp=2), or take a smaller one",
    ),
    Cause(
        r"Error Code 2: OutOfMemory \(Requested size was (?P<size>\d+) bytes",
        "the GPU ran out of memory: {size} bytes were asked for at once",
        "lower profile.max_num_tokens, profile.max_batch_size or profile.max_seq_len, quantize, or share the model: "
        "parallel.tp=2; nvidia-smi shows what else uses the GPU",
        "profile.max_num_tokens",
    ),
    Cause(
        r"Error Code 2: OutOfMemory|Cuda Runtime \(out of memory\)|"
        r"Requested amount of GPU memory .* could not be allocated",
        "the GPU ran out of memory",
        "lower profile.max_num_tokens, profile.max_batch_size or profile.max_seq_len, quantize, or share the model: "
        "parallel.tp=2; nvidia-smi shows what else uses the GPU",
        "profile.max_num_tokens",
    ),
    Cause(
        r"No such file or directory: '?[^']*(?P<file>rank\d+\.(?:safetensors|engine))",
        "{file} is missing: a rank was not written",
        "tp x pp files belong to a checkpoint, tp x pp x cp to an engine: build it again (refresh=true); its log says "
        "which rank failed",
    ),
    Cause(
        r"(?P<name>lib(?:nvinfer|cuda|nvidia-ml|mpi)[\w.-]*\.so[\w.]*): cannot open shared object file",
        "{name} is missing",
        "`trtbuild doctor` says what this machine lacks; NVIDIA's image brings all but the driver: executor=container",
    ),
    Cause(
        r"CUDA driver version is insufficient|forward compatibility was attempted on non supported",
        "the driver is older than this CUDA needs",
        "`trtbuild doctor` says which one it needs, and how to get it",
    ),
    Cause(
        r"No CUDA GPUs are available|no CUDA-capable device is detected",
        "the tool sees no GPU",
        "`trtbuild doctor` looks for the reason; executor.gpus=none gives a container none",
    ),
    Cause(
        r"Couldn't reach .* on the Hub|OfflineModeIsEnabled|Cannot reach https://huggingface\.co|LocalEntryNotFoundError",
        "the tool wanted a file from the Hub, and steps have no network",
        "everything that a step reads is given to it: a dataset as a folder (compiler.calib_dataset)",
        "compiler.calib_dataset",
    ),
    Cause(
        r"error: unrecognized arguments: (?P<what>.+)",
        "this release of the tool has no {what}",
        "",
        "compiler.version",
    ),
    Cause(r"error: argument (?P<what>--\w+: .+)", "the tool refuses {what}", "", None),
    Cause(r"No space left on device", "the disk is full", "`trtstore gc` frees room in the store"),
)

#: Warnings that often precede a failure and never cause it.
HARMLESS = (
    r"Invalid timing cache, using freshly created one",
    r"[Ss]kipping tactic .* due to (?:in)?sufficient memory",
    r"Tactic Device request: .* Device memory is insufficient to use tactic",
    r"profileSharing0806 is on by default",
    r"Unused Input: ",
    r"Using engine plan file across different models of devices is not recommended",
)
_ERROR = re.compile(r"\[E\]|\[ERROR\]|^\w*(?:Error|Exception)\b|error:", re.ASCII)


def failure(tool: str, status: int, lines: Sequence[str], *, limited: bool = False) -> BuildError:
    """The error of a tool that ended with `status` (an exit code, or minus a signal), from the lines of its log.

    `limited` says that the kernel killed a process for the memory limit of its control group meanwhile.
    """
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL) or (lines and lines[-1].strip() == "Killed"):
        if limited:
            return BuildError(
                f"{tool} was killed, as its container took more than the memory that it is allowed",
                option="executor.memory_gb",
                hint="raise executor.memory_gb, or leave it out; of a container that others made, raise its limit",
            )
        return BuildError(
            f"{tool} was killed: most often the kernel's answer when the host's memory (not the GPU's) is full",
            hint="`dmesg` tells; a build needs about twice the checkpoint's size: free memory, add swap, raise "
            "executor.memory_gb where it is set, or quantize first",
        )
    relevant = [line for line in lines if not any(re.search(harmless, line) for harmless in HARMLESS)]
    for cause in CAUSES:
        for line in relevant:
            match = re.search(cause.pattern, line)
            if match:
                words = cause.words.format(**match.groupdict())
                return BuildError(f"{tool}: {words}", option=cause.option, hint=cause.hint or None)
    errors = [line.strip() for line in relevant if _ERROR.search(line)]
    how = f"ended with signal {-status}" if status < 0 else f"ended with exit code {status}"
    last = f": {errors[-1][:300]}" if errors else ""
    return BuildError(f"{tool} {how}{last}")


def oom_kills() -> int:
    """How often the kernel killed a process of this control group (a container's) for its memory limit."""
    versions = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")  # 2 and 1
    for path in versions:
        try:
            counters = dict(line.split(maxsplit=1) for line in Path(path).read_text().splitlines())
            return int(counters["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0
