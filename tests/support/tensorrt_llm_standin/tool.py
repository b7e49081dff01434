"""Each of NVIDIA's tools, by the name that it is started with. Standard library only; see `__init__`."""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import struct
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
if "CONTRACT" not in globals():  # else it is asked for its parsers alone
    CONTRACT = json.loads((HERE / "contract.json").read_text())
    SETTINGS = json.loads((HERE / "settings.json").read_text())
SM = int(SETTINGS.get("capability", "0.0").replace(".", ""))
TYPES = {"int": int, "float": float}


def say(level, text, source="TRT-LLM"):
    print(f"[11/26/2026-12:00:00] [{source}] [{level}] {text}", flush=True)


def parser_of(name, flags):
    """Just the contract's flags: their types, their choices, and no abbreviations."""
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    for flag, told in flags.items():
        words = [flag, *told.get("aliases", [])]
        kwargs = {"dest": flag.lstrip("-").replace("-", "_")}
        if "action" in told:
            kwargs["action"] = told["action"]
        else:
            kwargs["type"] = TYPES.get(told["type"], str)
            for same in ("nargs", "required"):
                if same in told:
                    kwargs[same] = told[same]
            if "choices" in told:
                kwargs["choices"] = [each for each in told["choices"] if each is not None]
            if told["type"] == "KVCacheType":
                kwargs["choices"] = sorted(CONTRACT["kv_cache_type"].values())
        default = told.get("default")
        kwargs["default"] = None if isinstance(default, dict) or default == "<unset>" else default
        parser.add_argument(*words, **kwargs)
    return parser


def fail_as_recorded(name):
    """The failure that a test asked for: a real tool's words, and its way to end."""
    wanted = SETTINGS.get("failure")
    if wanted and name.endswith(wanted["tool"]):
        sys.stdout.write(wanted["log"])
        sys.stdout.flush()
        if wanted["status"] < 0:
            os.kill(os.getpid(), -wanted["status"])
        sys.exit(wanted["status"])


def write(path, data):
    if path.name != SETTINGS.get("dropped"):
        path.write_bytes(data)


def safetensors(values):
    """A file of that format with one tensor of bytes."""
    header = json.dumps({"weights": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


def digest_of(paths):
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def hugging_face(folder):
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    wanted = config.get("stand_in", {})  # what a test wants of whoever reads this model
    time.sleep(wanted.get("sleep", 0))
    hog = b"x" * wanted.get("hog", 0)
    assert len(hog) == wanted.get("hog", 0)
    if "signal" in wanted:
        os.kill(os.getpid(), wanted["signal"])
    weights = list(folder.glob("*.safetensors"))
    assert weights, f"Cannot find any model weights in {folder}"
    return config, digest_of(weights)


def algorithm(args, family):
    """What a converter makes of its flags."""
    if getattr(args, "smoothquant", None):
        names = {
            (False, False): "W8A8_SQ_PER_TENSOR_PLUGIN",
            (True, False): "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN",
            (False, True): "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN",
            (True, True): "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
        }
        return names[args.per_channel, args.per_token]
    if getattr(args, "use_fp8_rowwise", False):
        return "FP8_PER_CHANNEL_PER_TOKEN"
    if getattr(args, "use_weight_only", False):
        precisions = {"int8": "W8A16", "int4": "W4A16", "int8_gptq": "W8A16_GPTQ", "int4_gptq": "W4A16_GPTQ"}
        if args.weight_only_precision.endswith("_gptq"):
            assert args.quant_ckpt_path is not None or family == "qwen", "quant_ckpt_path is needed"
        return precisions[args.weight_only_precision]
    return None


def checkpoint(args, config, weights, quantization, calibration):
    tp, pp, cp = args.tp_size, args.pp_size, getattr(args, "cp_size", 1)
    heads = config["num_attention_heads"]
    assert heads % tp == 0, f"The number of attention heads {heads} must be divisible by tp_size {tp}."
    out = pathlib.Path(args.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    world = tp * pp * cp
    algo = quantization["quant_algo"]
    packed = SM if algo in CONTRACT["checkpoint_depends_on_gpu_arch"]["at_conversion"] else None
    made = {
        "architecture": config["architectures"][0],
        "dtype": {"auto": "float16"}.get(args.dtype, args.dtype),
        **{k: config[k] for k in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")},
        "intermediate_size": config["intermediate_size"],
        "num_key_value_heads": config["num_key_value_heads"],
        "max_position_embeddings": config["max_position_embeddings"],
        "rotary_scaling": config.get("rope_scaling"),
        "quantization": quantization,
        "mapping": {"world_size": world, "tp_size": tp, "pp_size": pp, "cp_size": cp},
    }
    write(out / "config.json", json.dumps(made, indent=4).encode())
    for rank in range(tp * pp):
        said = {"weights": weights, "rank": rank, "quantization": quantization, "dtype": made["dtype"]}
        said |= {"packed_for": packed, "calibration": calibration}
        write(out / f"rank{rank}.safetensors", safetensors(json.dumps(said, sort_keys=True).encode() * 40))
    print(f"Total time of converting checkpoints: 00:00:0{tp}")


def convert(name):
    args = parser_of(name, CONTRACT["convert_checkpoint_flags"][name]).parse_args()
    fail_as_recorded("convert_checkpoint.py")
    config, weights = hugging_face(args.model_dir)
    family = name.split("/")[-2]
    algo = algorithm(args, family)
    cache = "INT8" if getattr(args, "int8_kv_cache", False) else None
    cache = "FP8" if getattr(args, "fp8_kv_cache", False) else cache
    calibration = None
    if cache == "INT8" or (algo or "").startswith("W8A8"):
        calibration = digest_of(path for path in pathlib.Path(args.calib_dataset).rglob("*") if path.is_file())
    quantization = {"quant_algo": algo, "kv_cache_quant_algo": cache}
    if algo and algo.endswith("_GPTQ"):
        quantization["group_size"] = args.group_size
    checkpoint(args, config, weights, quantization, calibration)


def quantize():
    args = parser_of("quantize.py", CONTRACT["quantize_py_flags"]).parse_args()
    fail_as_recorded("quantize.py")
    config, weights = hugging_face(args.model_dir)
    names = {qformat: algo for algo, qformat in CONTRACT["modelopt_qformat"].items()}
    names |= {"fp8_pc_pt": "FP8_PER_CHANNEL_PER_TOKEN", "full_prec": None}
    calibration = None
    if args.qformat not in ("full_prec", "fp8_pc_pt") or args.kv_cache_dtype:
        folder = pathlib.Path(args.calib_dataset)
        if not folder.is_dir():
            sys.exit(f"ConnectionError: Couldn't reach '{args.calib_dataset}' on the Hub (OfflineModeIsEnabled)")
        files = [path for path in folder.rglob("*") if path.is_file()]
        calibration = [
            digest_of(files),
            args.calib_size,
            args.batch_size,
            args.seed,
            args.calib_max_seq_length,
        ]
    cache = {None: None, "int8": "INT8", "fp8": "FP8"}[args.kv_cache_dtype]
    quantization = {"quant_algo": names[args.qformat], "kv_cache_quant_algo": cache}
    if "awq" in args.qformat:
        assert config["hidden_size"] % args.awq_block_size == 0, "weight.shape[-1] % block_size != 0"
        quantization["group_size"] = args.awq_block_size
    checkpoint(args, config, weights, quantization, calibration)


def refuse_on_blackwell(config):
    """As builder.py does."""
    quantization = config["quantization"]
    refused = CONTRACT["rejected_on_sm_100_to_119"]
    bad = quantization["quant_algo"] in refused or f"kv_cache:{quantization['kv_cache_quant_algo']}" in refused
    if 100 <= SM < 120 and bad:
        raise RuntimeError("INT8/INT4 weight-only, SmoothQuant and INT8 KV cache are not supported on this SM")


def ranks_of(folder, count):
    files = []
    for rank in range(count):
        path = pathlib.Path(folder) / f"rank{rank}.safetensors"
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        files.append(path)
    return files


def effective(args, config):
    """BuildConfig as trtllm-build writes it back."""
    build = {name: told.get("default") for name, told in CONTRACT["build_config"].items()}
    build = {name: None if isinstance(value, dict) else value for name, value in build.items()}
    build |= {name: getattr(args, name) for name in build if hasattr(args, name)}
    build["use_strip_plan"] = args.strip_plan
    positions = config["max_position_embeddings"]
    if build["max_seq_len"] is None:
        build["max_seq_len"] = positions
        say("W", f"max_seq_len is not specified, using deduced value {positions}")
    most = build["max_seq_len"] * build["max_batch_size"]
    if build["max_num_tokens"] > most:
        say(
            "W",
            f"max_num_tokens ({build['max_num_tokens']}) shouldn't be greater than {most}, specifying to {most}.",
        )
        build["max_num_tokens"] = most
    plugins = {}
    for name, told in CONTRACT["plugin_config"].items():
        value = getattr(args, name, told.get("default"))
        value = {"enable": True, "disable": False if told["type"] == "bool" else None}.get(value, value)
        plugins[name] = config["dtype"] if value == "auto" else value
        say("I", f"Set {name} to {plugins[name]}.")
    build["plugin_config"] = plugins
    build["lora_config"] = {
        "lora_dir": [f"lora/{at}" for at, _ in enumerate(args.lora_dir or [])],
        "max_lora_rank": args.max_lora_rank,
        "lora_target_modules": args.lora_target_modules or [],
    }
    for name in CONTRACT["engine_config_keys"]["build_config_dropped"]:
        build.pop(name, None)
    return build


def plan(weights, rank, config):
    """What a plan stands for here. Weights are bytes in it, unless it is stripped."""
    said = {"serialization": SETTINGS["serialization"], "capability": SETTINGS["capability"], "rank": rank}
    said |= {"plugins": SETTINGS["version"], "network": config}
    return json.dumps(said, sort_keys=True).encode() + b"\n" + (b"" if weights is None else weights)


def build():
    args = parser_of("trtllm-build", CONTRACT["trtllm_build_flags"]).parse_args()
    print(f"[TensorRT-LLM] TensorRT-LLM version: {SETTINGS['version']}", flush=True)
    fail_as_recorded("trtllm-build")
    source = pathlib.Path(args.checkpoint_dir)
    config = json.loads((source / "config.json").read_text())
    mapping = config["mapping"]
    refuse_on_blackwell(config)
    files = ranks_of(source, mapping["tp_size"] * mapping["pp_size"])
    made = effective(args, config)
    out = pathlib.Path(args.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    cache = b""
    if args.input_timing_cache is not None:
        cache = pathlib.Path(args.input_timing_cache).read_bytes()
        say("I", f"Loaded {len(cache)} bytes of timing cache from {args.input_timing_cache}")
    else:
        say("W", "Invalid timing cache, using freshly created one")
    network = {name: value for name, value in made.items() if not name.endswith("timing_cache")}
    network["quantization"] = config["quantization"]
    for rank in range(mapping["world_size"]):
        weights = None if args.strip_plan else files[rank % len(files)].read_bytes()
        write(out / f"rank{rank}.engine", plan(weights, rank, network))
        say("I", f"Serializing engine to {out / f'rank{rank}.engine'}...")
    for at, adapter in enumerate(args.lora_dir or []):
        shutil.copytree(adapter, out / "lora" / str(at))
    whole = {"version": SETTINGS["version"], "pretrained_config": config, "build_config": made}
    write(out / "config.json", json.dumps(whole, indent=4).encode())
    pathlib.Path(args.output_timing_cache).write_bytes(cache or b"timings of one build\n")
    say("I", "Total time of building all engines: 00:00:01")


def refit():
    args = parser_of("trtllm-refit", CONTRACT["trtllm_refit_flags"]).parse_args()
    fail_as_recorded("trtllm-refit")
    source, out = pathlib.Path(args.engine_dir), pathlib.Path(args.output_dir)
    config = json.loads((source / "config.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    mapping = config["pretrained_config"]["mapping"]
    files = ranks_of(args.checkpoint_dir, mapping["tp_size"] * mapping["pp_size"])
    for rank in range(mapping["world_size"]):
        stripped = (source / f"rank{rank}.engine").read_bytes().partition(b"\n")[0]
        told = json.loads(stripped)
        here, there = SETTINGS["serialization"], told["serialization"]
        if here != there:
            say(
                "E",
                "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "
                "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: "
                f"{here}, Serialized Engine Version: {there})",
                "TRT",
            )
            sys.exit(1)
        if told["capability"] != SETTINGS["capability"]:
            say(
                "E",
                "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is generated on "
                f"an incompatible device, expecting compute {SETTINGS['capability']} got compute {told['capability']}, "
                "please rebuild.)",
                "TRT",
            )
            sys.exit(1)
        if told["plugins"] != SETTINGS["version"]:
            print(
                "[TensorRT-LLM][ERROR] tensorrt_llm::common::TllmException: [TensorRT-LLM][ERROR] Assertion failed: "
                "d == a + length (/app/tensorrt_llm/cpp/tensorrt_llm/plugins/gptAttentionCommon/gptAttentionCommon.cpp)"
            )
            sys.exit(1)
        write(out / f"rank{rank}.engine", stripped + b"\n" + files[rank % len(files)].read_bytes())
    write(out / "config.json", (source / "config.json").read_bytes())


def nvidia_smi():
    if "--query-gpu=compute_cap" in sys.argv:
        print(SETTINGS["capability"])
    else:
        print("GPU 0: NVIDIA GeForce RTX 4070 (UUID: GPU-00000000-0000-0000-0000-000000000000)")


if __name__ == "__main__":
    started = globals()["STARTED_AS"]
    programs = {
        "trtllm-build": build,
        "trtllm-refit": refit,
        "quantize.py": quantize,
        "nvidia-smi": nvidia_smi,
    }
    if started in programs:
        programs[started]()
    else:
        convert(started)
