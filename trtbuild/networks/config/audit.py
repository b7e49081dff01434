"""No field of config.json is passed over in silence: each is honoured, refused, neutral, or told as unknown.

The tables are in `tables` and `neutral`. `architectures.parse` asks
for the refusals, `architectures.audit` for the notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from trtbuild.errors import InputError
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.config.fields import Config, refuse
from trtbuild.networks.config.neutral import NEUTRAL, NEUTRAL_PREFIXES, NEUTRAL_SUFFIXES
from trtbuild.networks.config.rope import rope_notes
from trtbuild.networks.config.tables import HONOURED, REFUSED, REFUSED_PREFIXES, Rule

Kind = Literal["honoured", "refused", "neutral", "unknown"]


def kind_of(field: str, model_type: str) -> Kind:
    """What becomes of a field in the config of such a model ("refused": unless its value changes nothing)."""
    if field in HONOURED[model_type]:
        return "honoured"
    if rule_of(field, model_type) is not None:
        return "refused"
    neutral = field in NEUTRAL or field.startswith(tuple(NEUTRAL_PREFIXES)) or field.endswith(tuple(NEUTRAL_SUFFIXES))
    return "neutral" if neutral else "unknown"


def rule_of(field: str, model_type: str) -> Rule | None:
    """The rule by which the field is refused in the config of such a model; None where it never is."""
    if field in HONOURED[model_type]:
        return None
    if field in REFUSED:
        return REFUSED[field]
    return next((rule for prefix, rule in REFUSED_PREFIXES.items() if field.startswith(prefix)), None)


def refuse_outright(config: Config, model_type: str) -> None:
    """Raises InputError for values that are wrong whatever the decoder's sizes are.

    Said before any size is read: a config of several parts lacks the sizes, and that is not what is wrong.
    """
    for field, rule in _found(config, model_type):
        if rule.fits is None:
            raise _refusal(field, config[field], rule)


def refuse_unfit(config: Config, decoder: Decoder) -> None:
    """Raises InputError for values that are wrong in a decoder of these sizes."""
    for field, rule in _found(config, decoder.model_type):
        if rule.fits is None or not rule.fits(decoder, config[field]):
            raise _refusal(field, config[field], rule)


def _found(config: Config, model_type: str) -> list[tuple[str, Rule]]:
    rules = ((field, rule_of(field, model_type)) for field in config)
    return [(field, rule) for field, rule in rules if rule is not None and not rule.neutral(config[field])]


def _refusal(field: str, value: object, rule: Rule) -> InputError:
    if field == "quantization_config" and isinstance(value, Mapping) and "quant_method" in value:
        field, value = "quantization_config.quant_method", value["quant_method"]
    return refuse(field, value, rule.why, rule.hint)


def notes(config: Config, decoder: Decoder) -> tuple[str, ...]:
    """Sentences for the plan and the record about a config that `architectures.parse` took."""
    said, unknown = rope_notes(config, decoder.max_positions)
    if config.get("auto_map"):
        said.append(
            "config.json names code of its own (auto_map), which is not run: the model is built as transformers' "
            f"{decoder.architecture}"
        )
    for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = config.get(field)
        if any(isinstance(each, int) and each < 0 for each in (value if isinstance(value, list) else [value])):
            said.append(f"config.json has {field}={value!r}: a negative number names no token and is left out")
    unknown += sorted(field for field in config if kind_of(field, decoder.model_type) == "unknown")
    if unknown:
        said.append(
            f"config.json has fields that are unknown here and in transformers' {decoder.architecture}, and are "
            f"ignored in both: {', '.join(unknown)}"
        )
    return tuple(said)
