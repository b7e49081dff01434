"""The cores and the memory that control groups leave: of made-up machines, and of this one, by a group of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Project
from tests.support.threads import of_workers
from trtbuild.executors import cgroup_limits

HERE = len(os.sched_getaffinity(0))
NO_LIMIT = "9223372036854771712"  # how version 1 says so
GIB = 1 << 30


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A machine with 64 GiB free, what it says of this process's groups, and their files."""
    said = {"proc/meminfo": "MemTotal: 70000000 kB\nMemAvailable: 67108864 kB\n", "proc/self/cgroup": groups}
    for name, text in {**said, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


JOB = "system.slice/slurmstepd.scope/job_7/step_0"
CORES = {
    "no groups": ("", {}, HERE),
    "version 2, no limit": ("0::/user.slice\n", {"user.slice/cpu.max": "max 100000\n"}, HERE),
    "version 2, a container": ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
    "version 2, less than a core": ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
    "version 2, more than there are": ("0::/\n", {"cpu.max": "100000000 100000\n"}, HERE),
    "version 2, a job's step": (
        f"0::/{JOB}\n",
        {f"{JOB}/cpu.max": "max 100000\n", f"{JOB[:-7]}/cpu.max": "150000 100000\n"},
        1,
    ),
    "version 1, no limit": (
        "4:cpu,cpuacct:/\n0::/\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        HERE,
    ),
    "version 1, a container that does not see its name": (
        "4:cpu,cpuacct:/docker/0123\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        1,
    ),
    "a name that leads elsewhere": ("0::/../../x\n", {"cpu.max": "100000 100000\n"}, 1),
}


@pytest.mark.parametrize("case", CORES)
def test_cores(case: str, tmp_path: Path) -> None:
    groups, files, expected = CORES[case]
    made = machine(tmp_path, groups, files)
    assert cgroup_limits.cores(made) == expected
    assert cgroup_limits.thread_limit(made) == (None if expected == HERE else expected)


MEMORY = {
    "no groups": ("", {}, 64 * GIB),
    "version 2": (
        "0::/\n",
        {
            "memory.max": f"{8 * GIB}\n",
            "memory.current": f"{6 * GIB}\n",
            "memory.stat": f"anon 1\ninactive_file {5 * GIB}\n",  # a checkpoint that was read
        },
        7 * GIB,
    ),
    "version 2, no limit": ("0::/\n", {"memory.max": "max\n", "memory.current": "9\n"}, 64 * GIB),
    "version 2, full": ("0::/\n", {"memory.max": "1000\n", "memory.current": "2000\n"}, 0),
    "version 1": (
        "9:memory:/a/b\n",
        {
            "memory/a/b/memory.limit_in_bytes": NO_LIMIT,
            "memory/a/b/memory.usage_in_bytes": "5",
            "memory/a/memory.limit_in_bytes": f"{4 * GIB}",
            "memory/a/memory.usage_in_bytes": f"{3 * GIB}",
            "memory/a/memory.stat": f"inactive_file 7\ntotal_inactive_file {2 * GIB}\n",
        },
        3 * GIB,
    ),
}


@pytest.mark.parametrize("case", MEMORY)
def test_memory(case: str, tmp_path: Path) -> None:
    groups, files, expected = MEMORY[case]
    assert cgroup_limits.free_memory(machine(tmp_path, groups, files)) == expected


@pytest.fixture
def one_core() -> Iterator[Path]:
    """A control group of the kernel's with one core's worth of time; what joins it is in it until it ends."""
    if HERE < 2:
        pytest.skip("this machine has one core")
    for mount, file, words in (
        (Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "100000"),
        (Path("/sys/fs/cgroup"), "cpu.max", "100000 100000"),
    ):
        group = mount / f"trtbuild-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / file).write_text(words)
            yield group
            return
        except FileNotFoundError:
            continue
        finally:
            group.rmdir()
    pytest.skip("no control group with a limit of cores can be made here: that takes root")


def test_a_step_in_a_group_of_one_core_is_given_one_thread(one_core: Path, project: Project, tiny_llama: Path) -> None:
    joined = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(one_core))
    process = project.start(f"model.source={tiny_llama}", "until=network", inside=joined)
    assert of_workers(process, project) == ["1"]
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    asked = "from trtbuild.executors import cgroup_limits; print(cgroup_limits.cores())"
    done = subprocess.run([*joined, sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.stdout == "1\n"
