"""Tensors as an engine's code wants them on its device: those of the file, with 4-bit weights packed for the kernel."""

from __future__ import annotations

import torch

from trtbuild.compilers.aot_inductor.structure import ALIGNED, Structure, TensorSpec, WeightScheme, tensors

_TILE = 16  # of the GPU's kernel, along a row
_TILES = (8, 4, 2)  # tiles that it takes at once: the more, the better


def constants(structure: Structure, scheme: WeightScheme, device: str) -> dict[str, TensorSpec]:
    """`structure.tensors` as they are on `device`, "cpu" or "cuda"."""
    wanted = tensors(structure, scheme)
    if device == "cpu":
        return wanted
    return {name: _on_gpu(each) if each.dtype == "uint8" else each for name, each in wanted.items()}


def pack(stored: torch.Tensor, device: str) -> torch.Tensor:
    """A tensor of the file as the code on `device` wants it, which is where the result is."""
    if stored.dtype != torch.uint8:
        # As it lies in the file, which is mapped into memory; after a tensor of another size it may lie anywhere.
        there = device != "cpu" or stored.data_ptr() % ALIGNED == 0
        return stored.to(device) if there else stored.clone()
    here = stored.to(device)
    if device == "cpu":
        both = torch.stack((here & 15, here >> 4), dim=2).reshape(here.shape[0], -1)
        made: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(both.to(torch.int32), 1)
        return made
    turned = ((here & 15) << 4) | (here >> 4)  # that kernel has the upper half first
    return torch.ops.aten._convert_weight_to_int4pack(turned, _tiles(2 * here.shape[1]))


def _on_gpu(plain: TensorSpec) -> TensorSpec:
    rows, columns = plain.shape[0], 2 * plain.shape[1]
    tiles = _tiles(columns)
    return TensorSpec("int32", (rows // 8, columns // (tiles * _TILE), 32, tiles // 2))


def _tiles(columns: int) -> int:
    return next(tiles for tiles in _TILES if columns % (tiles * _TILE) == 0)
