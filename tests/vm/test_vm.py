"""The tests of this folder, in a machine whose kernel has what this one lacks: some four minutes, emulated.

TRTBUILD_TEST_KERNEL names a folder that a Debian kernel was unpacked to; see `boot`.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.vm import boot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("TRTBUILD_TEST_VM" in os.environ, reason="this is that machine"),
]


@pytest.mark.parametrize("name", ["test_verity", "test_bad_disks"])
def test_what_another_kernel_has(name: str) -> None:
    if "TRTBUILD_TEST_KERNEL" not in os.environ:
        pytest.skip("TRTBUILD_TEST_KERNEL names no kernel: fs-verity and failing disks are tried on one of Debian's")
    command = [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", f"tests/vm/{name}.py"]
    try:
        code, printed = boot.run(command, disk=1024, timeout=1200)
    except boot.Unavailable as why:
        pytest.skip(str(why))
    print(printed)
    assert code == 0, printed[-5000:]
    assert " passed" in printed
