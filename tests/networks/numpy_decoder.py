"""A decoder in float64 numpy, written from the papers and not from the graphs: the tests' yardstick."""

from __future__ import annotations

from typing import Any

import numpy as np


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def forward(settings: dict[str, Any], tensors: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """Logits [sequence, vocab] of one sequence of token ids, unscaled rotary positions only."""
    w = {name: values.astype(np.float64) for name, values in tensors.items()}
    heads, kv_heads, dim = (settings[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    eps, count = settings["rms_norm_eps"], len(ids)
    theta = settings["rope_parameters"]["rope_theta"]
    angles = np.outer(np.arange(count), theta ** (-np.arange(0, dim, 2) / dim))
    turn = np.exp(1j * angles)  # rotate each (i, i + dim / 2) pair as one complex number

    def linear(x: np.ndarray, module: str) -> np.ndarray:
        return x @ w[f"{module}.weight"].T + w.get(f"{module}.bias", 0.0)

    def rotated(x: np.ndarray) -> np.ndarray:
        pairs = (x[..., : dim // 2] + 1j * x[..., dim // 2 :]) * turn[:, None]
        return np.concatenate([pairs.real, pairs.imag], -1)

    x = w["model.embed_tokens.weight"][ids]
    distance = np.arange(count)[:, None] - np.arange(count)[None]
    hidden_from = (distance < 0) | (distance >= (settings.get("sliding_window") or count + 1))
    for layer in range(settings["num_hidden_layers"]):
        p = f"model.layers.{layer}"
        y = rms_norm(x, w[f"{p}.input_layernorm.weight"], eps)
        q = linear(y, f"{p}.self_attn.q_proj").reshape(count, heads, dim)
        k = linear(y, f"{p}.self_attn.k_proj").reshape(count, kv_heads, dim)
        v = linear(y, f"{p}.self_attn.v_proj").reshape(count, kv_heads, dim)
        if f"{p}.self_attn.q_norm.weight" in w:
            q = rms_norm(q, w[f"{p}.self_attn.q_norm.weight"], eps)
            k = rms_norm(k, w[f"{p}.self_attn.k_norm.weight"], eps)
        q, k = rotated(q), rotated(k)
        mixed = np.empty((count, heads, dim))
        for head in range(heads):
            group = head * kv_heads // heads
            scores = q[:, head] @ k[:, group].T / np.sqrt(dim)
            scores[hidden_from] = -np.inf
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, head] = shares / shares.sum(-1, keepdims=True) @ v[:, group]
        x = x + linear(mixed.reshape(count, -1), f"{p}.self_attn.o_proj")
        y = rms_norm(x, w[f"{p}.post_attention_layernorm.weight"], eps)
        gate = linear(y, f"{p}.mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(y, f"{p}.mlp.up_proj"), f"{p}.mlp.down_proj")
    x = rms_norm(x, w["model.norm.weight"], eps)
    return x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T
