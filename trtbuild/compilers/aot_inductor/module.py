"""The decoder as a plain PyTorch module, to be exported and compiled; its tensors are those of `structure`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtbuild.compilers.aot_inductor.device_constants import constants
from trtbuild.compilers.aot_inductor.structure import JOINED, SCALE, SCALES, Structure, WeightScheme, place

_E4M3_MAX = torch.finfo(torch.float8_e4m3fn).max


class DecoderModule(nn.Module):
    """One sequence at a time. Its cache is an input, which is changed in place.

    `forward(ids, positions, keys, values)`: ids and positions [tokens] int64; keys and values a tensor for each layer,
    [kv_heads, slots, head_dim] of `cache_dtype`; the new ones go to the slots at `positions`. (One tensor of all layers
    would be copied for each, as a compiled graph writes to whole inputs only.) Returns the logits of the last token,
    [vocab] float32. A token attends to the slots up to its own position, within the sliding window if there is one.
    """

    def __init__(self, structure: Structure, scheme: WeightScheme, device: str) -> None:
        super().__init__()
        self.structure, self.scheme = structure, scheme
        self.device = device
        for name, wanted in constants(structure, scheme, device).items():
            path, _, leaf = name.rpartition(".")
            empty = torch.empty(wanted.shape, dtype=getattr(torch, wanted.dtype), device=device)
            _at(self, path).register_buffer(leaf, empty)

    def forward(self, ids: Tensor, positions: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
        s = self.structure
        hidden = self._embed(ids)
        frequencies, factor = self.get_buffer("rotary.table")
        angles = positions.to(torch.float32)[:, None] * frequencies
        cosine, sine = angles.cos() * factor, angles.sin() * factor
        slots = torch.arange(keys[0].shape[1], device=ids.device)
        seen = slots[None] <= positions[:, None]
        if s.sliding_window is not None:
            seen = seen & (slots[None] > positions[:, None] - s.sliding_window)
        for layer in range(s.layers):
            prefix = f"model.layers.{layer}"
            normed = self._norm(hidden, f"{prefix}.input_layernorm")
            query, key, value = self._heads(prefix, normed, cosine, sine)
            keys[layer].index_copy_(1, positions, key)
            values[layer].index_copy_(1, positions, value)
            mixed = F.scaled_dot_product_attention(
                query[None],
                keys[layer][None],
                values[layer][None],
                attn_mask=seen[None, None],
                enable_gqa=True,
            )
            joined = mixed[0].transpose(0, 1).reshape(-1, s.heads * s.head_dim).to(hidden.dtype)
            hidden = hidden + self._linear(joined, f"{prefix}.self_attn.o_proj", s.output_bias)
            normed = self._norm(hidden, f"{prefix}.post_attention_layernorm")
            gate, up = self._linear(normed, f"{prefix}.mlp.gate_up_proj", s.mlp_bias).chunk(2, dim=-1)
            hidden = hidden + self._linear(F.silu(gate) * up, f"{prefix}.mlp.down_proj", s.mlp_bias)
        last = self._norm(hidden[-1:], "model.norm")
        return self._by_rows(last, "model.embed_tokens" if s.tied else "lm_head")[0].float()

    def _embed(self, ids: Tensor) -> Tensor:
        rows = F.embedding(ids, self.get_buffer("model.embed_tokens.weight"))
        if rows.dtype != torch.int8:
            return rows
        scales = F.embedding(ids, self.get_buffer("model.embed_tokens.scales")[:, None])
        return rows.to(scales.dtype) * scales

    def _heads(self, prefix: str, value: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value by head, [heads, tokens, head_dim]; query and key are rotated to their positions."""
        s = self.structure
        both = self._linear(value, f"{prefix}.self_attn.qkv_proj", s.attention_bias)
        apart = both.view(-1, s.heads + 2 * s.kv_heads, s.head_dim).transpose(0, 1)
        rotary, content = apart.split((s.heads + s.kv_heads, s.kv_heads))
        if s.qk_norm:
            query, key = rotary.split((s.heads, s.kv_heads))
            query = self._norm(query, f"{prefix}.self_attn.q_norm")
            rotary = torch.cat((query, self._norm(key, f"{prefix}.self_attn.k_norm")))
        wide = cache_dtype(self.scheme.dtype, self.device)
        query, key = _rotated(rotary, cosine, sine).to(wide).split((s.heads, s.kv_heads))
        return query, key, content.to(wide)

    def _norm(self, value: Tensor, name: str) -> Tensor:
        wide = value.float()
        unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.structure.norm_eps)
        return unit.to(value.dtype) * self.get_buffer(f"{name}.weight")

    def _linear(self, value: Tensor, name: str, bias: bool) -> Tensor:
        kinds = {"int4": self._by_groups, "fp8": self._by_codes}
        product = kinds.get(self.scheme.weights, self._by_rows)(value, name)
        return product + self.get_buffer(f"{name}.bias") if bias else product

    def _by_rows(self, value: Tensor, name: str) -> Tensor:
        weight = self.get_buffer(f"{name}.weight")
        if weight.dtype != torch.int8:
            return F.linear(value, weight)
        scales = self.get_buffer(f"{name}.scales")
        if self.device == "cpu":
            product: Tensor = torch.ops.aten._weight_int8pack_mm(value, weight, scales)
            return product
        # Compiles to one kernel that reads each weight once a token; PyTorch's own 8-bit kernel is slower than 16 bits.
        return (value[:, None] * weight.to(value.dtype)).sum(-1) * scales

    def _by_groups(self, value: Tensor, name: str) -> Tensor:
        weight, groups = self.get_buffer(f"{name}.weight"), self.get_buffer(f"{name}.groups")
        size = value.shape[-1] // groups.shape[0]
        if self.device == "cpu":
            product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(value, weight, size, groups)
        else:
            product = torch.ops.aten._weight_int4pack_mm(value, weight, size, groups)
        return product

    def _by_codes(self, value: Tensor, name: str) -> Tensor:
        """FP8 times FP8: the input is rounded by the checkpoint's own scale."""
        _, _, layer, linear = name.split(".", 3)
        at = place(int(layer), linear)
        scales = self.get_buffer(SCALES)[at]
        input_scale, weight_scale = scales[:1], scales[SCALE : SCALE + 1]
        codes = (value.float() / input_scale).clamp(-_E4M3_MAX, _E4M3_MAX).to(torch.float8_e4m3fn)
        weight = self.get_buffer(f"{name}.weight").t()
        joined = len(JOINED[linear]) > 1
        wide = torch.float32 if joined else value.dtype
        product: Tensor = torch._scaled_mm(codes, weight, scale_a=input_scale, scale_b=weight_scale, out_dtype=wide)
        return (product * self.get_buffer(f"{name}.shares")).to(value.dtype) if joined else product


def cache_dtype(dtype: str, device: str) -> torch.dtype:
    """The dtype of keys and values. On a CPU it is float32: attention in 16 bits takes twice as long there."""
    chosen: torch.dtype = torch.float32 if device == "cpu" else getattr(torch, dtype)
    return chosen


def _rotated(value: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`value` [heads, tokens, head_dim] rotated by angles [tokens, head_dim / 2], in float32."""
    first, second = value.float().chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def _at(module: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path, created if missing."""
    for name in path.split("."):
        child = module._modules.get(name)
        if child is None:
            child = nn.Module()
            module.add_module(name, child)
        module = child
    return module
