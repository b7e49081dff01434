"""Memory of a GPU through the driver alone: runs where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from trtbuild.compilers import cuda as device

FOUND, WHY = device.find()


@pytest.mark.skipif(FOUND is not None, reason="this machine has a GPU")
def test_where_there_is_none_the_reason_is_told() -> None:
    assert WHY in (
        "this machine has no NVIDIA driver",
        "this process sees no NVIDIA GPU",
    ) or WHY.startswith("the NVIDIA driver does not start")


@pytest.mark.skipif(FOUND is None, reason=WHY)
def test_rows_go_to_the_slots_of_a_cache_on_the_gpu() -> None:
    assert FOUND is not None and FOUND.capability.count(".") == 1
    here = device.CudaDevice()
    heads, slots, tokens, row = 3, 10, 4, 8
    cache, new = here.zeros(heads * slots * row * 2), here.zeros(heads * tokens * row * 2)
    values = np.arange(heads * tokens * row, dtype=np.float16).reshape(heads, tokens, row)
    here.write(new, values)
    here.copy_rows(cache + 5 * row * 2, slots * row * 2, new, tokens * row * 2, 3 * row * 2, heads)
    found = np.empty((heads, slots, row), np.float16)
    here.read(found, cache)
    wanted = np.zeros_like(found)
    wanted[:, 5:8] = values[:, :3]
    np.testing.assert_array_equal(found, wanted)
