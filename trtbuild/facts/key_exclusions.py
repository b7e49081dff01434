"""The options and facts that are in no key, each with the reason. All others are in a key.

Names are dotted; `executor.*` means all options below. What only some compilers leave out is in their own
`Compiler.unread`. `tests/facts/test_mutations.py` changes every option and every fact, and compares keys with these
lists.
"""

from __future__ import annotations

from collections.abc import Mapping

_SOURCE = "where the bytes are taken from: their sha256 are the identity"
_RESULT = "where results go"
_WHERE = "where steps are run, and how many at a time"
_USE = "what is done with an engine that is there"

#: Options of the schema.
OPTIONS: Mapping[str, str] = {
    "model.source": _SOURCE,
    "model.revision": _SOURCE,
    "model.wheel.sha256": _SOURCE,
    "model.wheel.member": _SOURCE,
    "model.wheel.member_sha256": _SOURCE,
    "model.wheel.member_size": _SOURCE,
    "model.wheel.config": "is in the bytes of the identity: what of it a key reads is compared with them",
    "target.name": "a word for the hardware: its facts are in the key",
    "target.device": "which of the equal GPUs here is asked: their facts are in the key",
    "target.gpus": "an engine for two GPUs is the same on a host of eight: parallel.tp and parallel.pp count",
    "target.source": "words for people",
    "target.job.*": _WHERE,
    "fleet.name": "a word for people",
    "executor.*": "how and where a step is run; no byte depends on it",
    "store.*": "where results go, and whose are taken",
    "check.*": _USE,
    "sweep.*": _WHERE,
    "generate.*": _USE,
    "prompt": _USE,
    "output": _RESULT,
    "out": _RESULT,
    "report": _RESULT,
    "refresh": "builds the same again, to compare",
    "until": "where to stop: each step has its own key",
    "serve": _USE,
}

#: Facts of a Recipe that come from no option, or that an option was resolved to.
FACTS: Mapping[str, str] = {
    "model.label": "a word for people",
    "model.origin": _SOURCE,
    "model.architecture": "is in the bytes of the identity",
    "model.gguf": "is in the paths of the identity",
    "model.bytes": "follows from the identity",
    "model.context": "is in the bytes of the identity",
    "model.files": "the identity is their digest",
    "model.pins": _SOURCE,
    "model.config": "is in the bytes of the identity",
    "model.described": "is in the bytes of the identity; a step that does not read them has each field as network.*",
    "quant.scheme": "the name of a preset: what it sets is in the key",
    "target.name": OPTIONS["target.name"],
    "target.origins": "words for people",
    "target.here": "words for people",
    "target.gpus": OPTIONS["target.gpus"],
    "target.microarchitecture": "compilers know generic levels: target.level is what they may read",
    "lock.title": "a word for people",
    "lock.chosen": "are among the lock's packages: it says which of them executor=auto looks at",
    "lock.indexes": "where wheels are taken from: their sha256 are in the key",
    "lock.downloads": "words for people",
}


def reason(option: str, *lists: Mapping[str, str]) -> str | None:
    """Why `option` is in no key, from `OPTIONS` and `lists`; None if it is in one."""
    for reasons in (OPTIONS, *lists):
        for name, why in reasons.items():
            if option == name or (name.endswith(".*") and option.startswith(name[:-1])):
                return why
    return None
