"""Machines for the doctor: a folder of system files, programs that say what was recorded of them, and NVML's facts.

The answers are those of real programs: `docker info` and `nvidia-ctk` of NVIDIA's and Docker's documentation, error
words of the issues that are named beside them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

UBUNTU = 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n'
FEDORA = 'PRETTY_NAME="Fedora Linux 42 (Server Edition)"\nNAME="Fedora Linux"\nID=fedora\n'
ROCKY = 'PRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"\nNAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
SMI = "GPU 0: NVIDIA GeForce RTX 4070 (UUID: GPU-00000000-0000-0000-0000-000000000000)\n"
CTK = "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d\n"
DAEMON = json.dumps({"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}})
WITH = json.dumps({"Runtimes": {"nvidia": {"path": "nvidia-container-runtime"}, "runc": {"path": "runc"}}})
WITHOUT = json.dumps({"Runtimes": {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}}})
CDI = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n"
IMAGE = f"nvcr.io/nvidia/tensorrt-llm/release:1.2.1@sha256:{'ab' * 32}"

#: What a program answers: (a word that its arguments begin with, exit status, output, complaint)
Answers = tuple[tuple[str, int, str, str], ...]
FACTS_4070 = "driver {driver}\ncuda {cuda}\ngpu\nname NVIDIA GeForce RTX 4070\nuuid GPU-0\nmemory 12282\n"
FACTS_4070 += "capability 8 9\ncores 5888\n"


def nvml(driver: str = "580.95.05", cuda: int = 13000) -> str:
    return FACTS_4070.format(driver=driver, cuda=cuda)


@dataclass(frozen=True)
class Machine:
    facts: str  # of NVML's stand-in
    files: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, Answers] = field(default_factory=dict)

    def make(self, root: Path) -> Path:
        """Its files below `root`, its programs in `root`/programs."""
        for name, text in {**self.files, "facts.txt": self.facts}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        programs = root / "programs"
        programs.mkdir()
        for name, answers in self.programs.items():
            path = programs / name
            path.write_text(
                f"#!{sys.executable} -IS\nimport json, sys\nsaid = ' '.join(sys.argv[1:])\n"
                f"for begin, status, out, complaint in json.loads({json.dumps(json.dumps(answers))}):\n"
                "    if said.startswith(begin):\n"
                "        sys.stdout.write(out)\n        sys.stderr.write(complaint)\n        sys.exit(status)\n"
                "sys.exit(f'no answer was recorded for {said}')\n"
            )
            path.chmod(0o755)
        return root


def docker(info: str = WITH, image: int = 0, run: tuple[int, str, str] = (0, SMI, "")) -> Answers:
    return (
        ("info", 0, info, ""),
        ("image inspect", image, "[]", "" if image == 0 else "Error response from daemon: No such image\n"),
        ("run --rm --network none --gpus all --entrypoint nvidia-smi", *run),
    )


HEALTHY = {
    "nvidia-smi": (("-L", 0, SMI, ""),),
    "nvidia-ctk": (("--version", 0, CTK, ""),),
    "docker": docker(),
}
FILES = {"etc/os-release": UBUNTU, "etc/docker/daemon.json": DAEMON}
MEMINFO = {"proc/meminfo": "MemTotal:       65000000 kB\nMemAvailable:   60000000 kB\n"}

MACHINES: Mapping[str, Machine] = {
    "healthy": Machine(nvml(), {**FILES, **MEMINFO}, HEALTHY),
    # https://github.com/Frogging-Family/nvidia-all/pull/212: an RTX 4070 with the driver of early 2024
    "old driver": Machine(nvml("550.40.07", 12040), FILES, HEALTHY),
    # https://github.com/NVIDIA/nvidia-docker/issues/1711
    "no toolkit": Machine(nvml(), {"etc/os-release": UBUNTU}, {**HEALTHY, "nvidia-ctk": (), "docker": docker(WITHOUT)}),
    "daemon not restarted": Machine(nvml(), FILES, {**HEALTHY, "docker": docker(WITHOUT)}),
    # After an update of the driver: NVML's and nvidia-smi's words
    "driver mismatch": Machine(
        "fail nvmlInit 18\n",
        {**FILES, "etc/os-release": FEDORA},
        {
            **HEALTHY,
            "nvidia-smi": (("-L", 18, "", "Failed to initialize NVML: Driver/library version mismatch\n"),),
        },
    ),
    # https://github.com/NVIDIA/nvidia-container-toolkit/issues/154
    "container without GPU": Machine(
        nvml(),
        FILES,
        {
            **HEALTHY,
            "docker": docker(
                run=(
                    125,
                    "",
                    "docker: Error response from daemon: failed to create task for container: nvidia-container-cli: "
                    "initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file\n",
                )
            ),
        },
    ),
    "podman without CDI": Machine(
        nvml(),
        {"etc/os-release": ROCKY},
        {
            "nvidia-smi": (("-L", 0, SMI, ""),),
            "nvidia-ctk": (("--version", 0, CTK, ""),),
            "podman": (("info", 0, "{}", ""), ("image inspect", 125, "", "no such image\n")),
        },
    ),
}
