"""Turns command-line words into checked Configs. Only this, `program` and `points` know Hydra."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from trtbuild.config import composer, hydra_gate, points, program, schema, secrets, sweep_schema
from trtbuild.errors import InputError

# These take free text: quoted here, so that a comma or a bracket in a prompt is not Hydra's grammar.
_TEXT = ("prompt", "check.prompt")
# Hydra reads 550.120 as a number, and a number loses its last 0.
_RELEASES = ("target.driver", "target.cuda", "target.compute_capability", "fleet.driver", "fleet.cuda")
# These hold names that are the user's own: Hydra calls that adding, and wants a +.
_MAPPINGS = re.compile(r"compiler\.(packages|locks)(\.[^=]+)?")
_PATHS = ("out", "report", "store.root", "model.source", "model.revision", "executor.python")

_DEFAULT = "onnxruntime"  # the compiler, by conf/config.yaml

_RERUN = "--experimental-rerun"  # Hydra would unpickle the file that it names


def run(args: Sequence[str], task: Callable[[schema.Config], None], sweep: points.Run | None = None) -> None:
    """Compose a Config from `args` (overrides and Hydra's own flags) and give it to `task`.

    Under `-m` all points of the sweep are composed and given to `sweep`, which by default is `task` for each. Hydra's
    other flags (`--cfg`, `-sc`, …) print and return. Nothing is written and the working directory stays. Raises
    InputError for whatever the words get wrong.
    """
    for arg in args:
        flag = arg.partition("=")[0]
        if flag.startswith("--e") and _RERUN.startswith(flag):  # argparse takes abbreviations
            raise InputError(f"{_RERUN} is not supported: it would unpickle a file")
    sweeping = is_sweep(args)
    words = [_quoted(arg, sweeping) for arg in args]

    failures: list[Exception] = []

    def on_config(cfg: DictConfig) -> None:
        try:
            task(_checked(cfg))
        except Exception as error:  # noqa: BLE001  # raised below: Hydra would print words of its own first
            failures.append(error)

    hydra_gate.take_plugins(words)
    secrets.register()
    schema.register(_within_reach(words))
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: their words are ours to choose
    try:
        with points.launching(sweep or partial(_each, task), composer.Check(_checked, _checked_nodes)):
            program.run(words, on_config)
    except YAMLError as error:  # a tag of Python's is one, and makes nothing
        said = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise InputError(
            f"a config file cannot be read: {said[:300]}", hint="a config is plain YAML: no tags, no code"
        ) from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _explained(error) from error
    finally:
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    if failures:
        raise failures[0]


def _each(task: Callable[[schema.Config], None], listed: Sequence[points.Point]) -> list[float | None]:
    for point in listed:
        task(point.config)
    return [None] * len(listed)


def _within_reach(words: Sequence[str]) -> Sequence[str]:
    """The compilers that these words may choose, since registering each takes time; with flags, all of them."""
    if any(word.startswith("-") for word in words):
        return tuple(schema.COMPILERS)
    said = " ".join(words)
    return [name for name in schema.COMPILERS if name == _DEFAULT or name in said]


def is_sweep(args: Sequence[str]) -> bool:
    """Whether Hydra's flag for several points is among them."""
    return any(arg == "--multirun" or re.fullmatch(r"-[a-z]*m[a-z]*", arg) for arg in args)


def _quoted(arg: str, sweeping: bool) -> str:
    name, eq, value = arg.partition("=")
    if name in _RELEASES and re.fullmatch(r"[\d.,]+", value):
        return f"{name}={','.join(repr(each) for each in value.split(','))}"
    if eq and _MAPPINGS.fullmatch(name):
        return f"++{arg}"
    free = name in _TEXT or (name in _PATHS and not sweeping)
    if not (eq and free) or value[:1] in ("'", '"') or value in ("", "null"):
        return arg
    if name in _TEXT:
        value = value.replace("${", r"\${")  # a prompt is not an interpolation
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"{name}='{escaped}'"


def _checked(cfg: DictConfig) -> schema.Config:
    """The composed config as plain dataclasses. Raises InputError for a key that `+name=…` added."""
    try:
        _refuse_unknown(cfg, "")
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise _explained(error) from error
    if not isinstance(config, schema.Config):
        raise InputError(
            "the root of this config is not trtbuild's schema",
            option="--config-dir",
            hint="a file schema.yaml there hides it: give it another name; a root file begins with "
            "`defaults: [config, _self_]`",
        )
    secrets.check(config)
    return config


def _checked_nodes(cfg: DictConfig) -> dict[str, Any]:
    """The same for a few nodes of the root, which are all that `cfg` holds."""
    nodes: dict[str, Any] = {}
    for name in map(str, cfg):
        node = cfg._get_node(name)
        try:
            _refuse_unknown(node, f"{name}.")
            nodes[name] = OmegaConf.to_object(node) if isinstance(node, DictConfig) else cfg[name]
            secrets.check(nodes[name], name)
        except OmegaConfBaseException as error:
            raise _explained(error) from error
    return nodes


def _refuse_unknown(node: Any, path: str) -> None:
    if not isinstance(node, DictConfig) or not is_dataclass(kind := OmegaConf.get_type(node)):
        return
    known = {f.name for f in fields(kind)}
    for name in node:
        dotted = path + str(name)
        if name not in known and dotted != "hydra":
            raise InputError(f"there is no option {dotted}", option=dotted, hint=_nearest(dotted))
        if name in known and not OmegaConf.is_missing(node, name):
            _refuse_unknown(node[name], f"{dotted}.")


def _explained(error: Exception) -> InputError:
    """An error of Hydra or OmegaConf as one sentence that names the dotted option and the fix."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    held = secrets.refusal(error, getattr(cause, "full_key", None))
    if held is not None:
        return held
    if isinstance(error, MissingConfigException) and "Available options" in str(error):
        return _missing_choice(error)
    if isinstance(cause, OmegaConfBaseException) and getattr(cause, "full_key", None):
        dotted, reason = str(cause.full_key), str(cause).splitlines()[0]
        if re.match(r"Key '.*' (is )?not in ", reason) or ("not a valid" in reason and "key" in reason.lower()):
            return InputError(f"there is no option {dotted}", option=dotted, hint=_nearest(dotted))
        if "mandatory value" in reason.lower():
            return InputError(f"{dotted} is required", option=dotted, hint=f"give it: {dotted}=…")
        return InputError(_plain(reason), option=dotted)
    text = str(error).splitlines()
    if match := re.match(r"Could not override '(.+)'\.", text[0]):
        return InputError(f"there is no option {match[1]}", option=match[1], hint=_nearest(match[1]))
    if match := re.match(r"Ambiguous value for argument '(.+?)=", text[0]):
        name = match[1]
        return InputError(f"{name} has several values", option=name, hint="add -m to sweep, or quote: name=\"'a,b'\"")
    if isinstance(error, OverrideParseException):
        word = getattr(error, "override", "")
        return InputError(
            f"cannot read {word!r}: {text[0] if len(text) == 1 else text[1]}",
            hint="an option is written name=value; quote special characters: name=\"'a, b'\"",
        )
    return InputError(" ".join(line.strip() for line in text if line.strip())[:500])


def _missing_choice(error: MissingConfigException) -> InputError:
    text = str(error)
    group, _, name = (error.missing_cfg_file or "").partition("/")
    if not name:
        return InputError(text.splitlines()[0])
    listed = re.findall(r"^\t([^\s=]+)$", text.split("Config search path")[0], flags=re.MULTILINE)
    there = [x for x in listed if not x.endswith("schema")]
    near = [x for x in there if x.startswith(name)] or difflib.get_close_matches(name, there, n=1)
    meant = " or ".join(f"{group}={x}" for x in near)
    hint = (f"did you mean {meant}? " if near else "") + f"There are: {', '.join(there)}"
    if group == "model":
        hint += "; any other: model.source=/path or model.source=hf://org/name@revision"
    return InputError(f"there is no {group} named {name!r}", option=f"{group}={name}", hint=hint)


def _plain(reason: str) -> str:
    for pattern, words in (
        (r"Value (.+) of type '\w+' could not be converted to Integer", r"\1 is not a whole number"),
        (r"Value (.+) of type '\w+' could not be converted to Float", r"\1 is not a number"),
        (r"Value (.+) is not a valid bool.*", r"\1 is not true or false"),
        (r"Invalid value (.+), expected one of \[(.*)\]", r"\1 is not one of \2"),
        (r"field '(\w+)' is not Optional", r"null is not allowed here"),
    ):
        if re.match(pattern, reason):
            return re.sub(pattern, words, reason)
    return reason


def _nearest(dotted: str) -> str:
    names = option_names()
    near = difflib.get_close_matches(dotted.lstrip("+~"), names, n=1, cutoff=0.5)
    leaf = dotted.rpartition(".")[2]
    near = near or [n for n in names if n.rpartition(".")[2] == leaf][:1]
    return f"did you mean {near[0]}?" if near else "`trtbuild --cfg job` shows all options"


def option_names() -> list[str]:
    """Every dotted option of the schema, groups first; compilers' own options included."""
    names: list[str] = []

    def walk(kind: type, prefix: str) -> None:
        for item in fields(kind):
            dotted = prefix + item.name
            names.append(dotted)
            if nested := _NESTED.get(dotted):
                for each in nested:
                    walk(each, dotted + ".")

    walk(schema.Config, "")
    return list(dict.fromkeys(names))


_NESTED: dict[str, tuple[type, ...]] = {
    **{group: (kind,) for group, kind in schema.GROUPS.items()},
    "compiler": tuple(schema.COMPILERS.values()),
    "parallel": (schema.ParallelConf,),
    "network": (schema.NetworkConf,),
    "key": (schema.KeyConf,),
    "generate": (schema.GenerateConf,),
    "model.wheel": (schema.WheelConf,),
    "target.job": (sweep_schema.JobConf,),
    "sweep.slurm": (sweep_schema.SlurmConf,),
    "sweep.ray": (sweep_schema.RayConf,),
}
