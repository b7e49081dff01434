"""A stand-in for NVIDIA's management library, for machines that have no GPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("stand_in.c")
FACTS = "TRTBUILD_NVML_FACTS"  # the variable that names the file of facts


def build(folder: Path) -> Path:
    """The folder with the library, for LD_LIBRARY_PATH; skips, saying why, where no C compiler is installed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: neither cc nor gcc is installed")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE)], check=True)
    return folder
