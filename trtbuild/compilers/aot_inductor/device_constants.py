"""The weights of an engine as its code wants them on a device: 4-bit weights are packed for the kernel there."""

from __future__ import annotations

import torch

from trtbuild.compilers.aot_inductor.structure import ALIGNED, Structure, TensorSpec, WeightScheme, tensors

_TILE = 16  # of the GPU's kernel, along a row
_TILES = (8, 4, 2)  # tiles that the kernel takes at once, the fastest first


def constants(structure: Structure, scheme: WeightScheme, device: str) -> dict[str, TensorSpec]:
    """`structure.tensors` as they are on `device`, "cpu" or "cuda"."""
    wanted = tensors(structure, scheme)
    if device == "cpu":
        return wanted
    return {name: _on_gpu(spec) if spec.dtype == "uint8" else spec for name, spec in wanted.items()}


def pack(stored: torch.Tensor, device: str) -> torch.Tensor:
    """A tensor of the file as the code on `device` wants it. The result is on `device`."""
    if stored.dtype != torch.uint8:
        # The file is mapped into memory, where a tensor after one of an odd size is not aligned.
        usable = device != "cpu" or stored.data_ptr() % ALIGNED == 0
        return stored.to(device) if usable else stored.clone()
    here = stored.to(device)
    if device == "cpu":
        both = torch.stack((here & 15, here >> 4), dim=2).reshape(here.shape[0], -1)
        packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(both.to(torch.int32), 1)
        return packed
    swapped = ((here & 15) << 4) | (here >> 4)  # the GPU's kernel has the upper half first
    return torch.ops.aten._convert_weight_to_int4pack(swapped, _tiles(2 * here.shape[1]))


def _on_gpu(plain: TensorSpec) -> TensorSpec:
    rows, columns = plain.shape[0], 2 * plain.shape[1]
    tiles = _tiles(columns)
    return TensorSpec("int32", (rows // 8, columns // (tiles * _TILE), 32, tiles // 2))


def _tiles(columns: int) -> int:
    return next(tiles for tiles in _TILES if columns % (tiles * _TILE) == 0)
