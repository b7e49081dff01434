"""Writes unified checkpoints of a tiny model in plain numpy, as the formats have them: what the reader is tested on."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import tiny
from trtbuild.compilers.modelopt.exported import E4M3
from trtbuild.compilers.modelopt.schemes import SCHEMES, ModelOptScheme

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GROUP = 16
Tensors = dict[str, tuple[str, np.ndarray]]

_POSITIVE = np.unique(E4M3[:127])
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


def fp8(values: np.ndarray) -> np.ndarray:
    """Codes of the nearest E4M3 numbers, by looking at all of them."""
    at = np.abs(np.abs(values)[..., None] - _POSITIVE).argmin(-1)
    return (at + np.where(np.signbit(values), 128, 0)).astype(np.uint8)


def fp4(values: np.ndarray) -> np.ndarray:
    at = np.abs(np.abs(values)[..., None] - _FP4).argmin(-1)
    return (at + np.where(values < 0, 8, 0)).astype(np.uint8)


def quantized(name: str, weight: np.ndarray, algorithm: str) -> Tensors:
    """The tensors of a linear map `name`, in the format of `algorithm`."""
    rows, columns = weight.shape
    most = np.abs(weight).max(1)
    scalar = ("F32", np.float32(0.05).reshape(()))
    if algorithm in ("W8A16", "W8A8_SQ_PER_CHANNEL"):
        smooth = np.linspace(0.5, 2, columns).astype(np.float32) if "SQ" in algorithm else None
        given = weight if smooth is None else weight / smooth
        scale = np.abs(given).max(1) / 127
        made = {
            "weight": ("I8", np.rint(given / scale[:, None]).astype(np.int8)),
            "weight_scale": ("F32", scale),
        }
        if smooth is not None:
            made |= {"pre_quant_scale": ("F32", smooth), "input_scale": scalar}
    elif algorithm.startswith("FP8"):
        scale = (most if "CHANNEL" in algorithm else most.max().reshape(())) / np.float32(448)
        codes = fp8(weight / (scale[:, None] if scale.ndim else scale))
        made = {"weight": ("F8_E4M3", codes), "weight_scale": ("F32", scale)}
        if algorithm == "FP8":
            made["input_scale"] = scalar
    elif algorithm == "NVFP4":
        whole = np.abs(weight).max() / np.float32(6 * 448)
        blocks = weight.reshape(rows, -1, 16)
        shared = fp8(np.abs(blocks).max(-1) / 6 / whole)
        codes = fp4(blocks / (E4M3[shared] * whole)[..., None]).reshape(rows, columns)
        made = {
            "weight": ("U8", codes[:, ::2] | codes[:, 1::2] << 4),
            "weight_scale": ("F8_E4M3", shared),
            "weight_scale_2": ("F32", whole.reshape(())),
            "input_scale": scalar,
        }
    else:
        blocks = weight.reshape(rows, -1, GROUP)
        scale = np.abs(blocks).max(-1) / 7
        codes = np.rint(blocks / scale[..., None]).astype(np.int8).reshape(rows, columns) & 15
        made = {
            "weight": ("U8", (codes[::2] | codes[1::2] << 4).astype(np.uint8)),
            "weight_scale": ("F32", scale),
        }
        if algorithm == "W4A8_AWQ":
            made |= {"weight_scale_2": ("F32", np.float32(0.01).reshape(())), "input_scale": scalar}
    return {f"{name}.{part}": value for part, value in made.items()}


def export(weights: dict[str, np.ndarray], scheme: ModelOptScheme, kv: bool) -> Tensors:
    """All tensors of the checkpoint."""
    made: Tensors = {}
    for name, values in weights.items():
        module = name.removesuffix(".weight")
        if scheme.algorithm and module.rpartition(".")[2] in LINEARS and name.endswith(".weight"):
            made |= quantized(module, values, scheme.algorithm)
        else:
            made[name] = ("F32", values)
        if kv and module.endswith(("k_proj", "v_proj")) and name.endswith(".weight"):
            made[f"{module}.{module[-6]}_scale"] = ("F32", np.float32(0.02).reshape(()))
    return made


def write(path: Path, tensors: Tensors) -> None:
    """A .safetensors file, whose library knows no 8-bit floats in numpy."""
    header: dict[str, Any] = {}
    data = b""
    for name, (kind, values) in tensors.items():
        raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


class Case:
    """A tiny model, and a checkpoint of it in one scheme: `tensors` and `config` may be changed before `write`."""

    def __init__(
        self,
        folder: Path,
        parts: tuple[str, str, str],
        *,
        kv: bool = False,
        excluded: tuple[str, ...] = (),
        **changes: Any,
    ) -> None:
        self.folder, self.scheme = folder, SCHEMES[parts]
        self.changes, self.config = changes, tiny.config(**changes)
        self.weights = tiny.weights(self.config)
        self.tensors = export(self.weights, self.scheme, kv)
        self.words: dict[str, Any] = {"quant_algo": self.scheme.algorithm}
        if self.scheme.grouped:
            self.words["group_size"] = GROUP
        if kv:
            self.words["kv_cache_quant_algo"] = "FP8"
        left = [name for name in self.weights if any(fnmatch(name, f"{each}.weight") for each in excluded)]
        for name in left:
            self.leave(name.removesuffix(".weight"))
        self.words["exclude_modules"] = ["lm_head", *(name.removesuffix(".weight") for name in left)]
        self.facts: dict[str, Any] = {
            "model.dtype": "float32",
            "quant.kv_cache": "fp8" if kv else "auto",
            "quant.group_size": GROUP if self.scheme.grouped else None,
            **({"compiler.exclude_modules": list(excluded)} if excluded else {}),
        }

    def leave(self, module: str) -> None:
        """The linear map as the model has it."""
        for name in [name for name in self.tensors if name.startswith(f"{module}.")]:
            if not name.endswith((".k_scale", ".v_scale")):
                del self.tensors[name]
        self.tensors[f"{module}.weight"] = ("F32", self.weights[f"{module}.weight"])

    def write(self) -> Path:
        """The folder of the checkpoint."""
        made = self.folder / "made"
        made.mkdir(exist_ok=True)
        write(made / "model.safetensors", self.tensors)
        named = {"ignore" if name == "exclude_modules" else name: said for name, said in self.words.items()}
        said = {"quant_method": "modelopt", **named} if self.scheme.algorithm else None
        (made / "config.json").write_text(json.dumps(self.config | {"quantization_config": said}))
        if said:
            (made / "hf_quant_config.json").write_text(json.dumps({"quantization": self.words}))
        return made
