"""Keeps secrets out of options: these go to keys, records, logs, job files and process lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from trtbuild.config import locations
from trtbuild.errors import InputError
from trtbuild.redact import has_secrets, secret_name, secrets

#: Options that hold text of the user's own: a URL in it is for the model to read.
_FREE = frozenset({"prompt", "check.prompt"})
_ASSIGNED = re.compile(r"(?:^|[\s'\";])(?:--env=|-e=?)?([A-Za-z_]\w*)=(?![$\s]|$)")
#: Options whose words may set a variable.
_SETTING = ("executor.flags", "executor.engine_flags", "sweep.slurm.setup")
_BY_NAME = "executor.env=[{}] gives a step the variable by its name; trtbuild itself reads the environment"
_PLACES = {
    "store.team": "credentials are the environment's: docs/team.md lists the variables of each cloud",
    "model.source": "HF_TOKEN is the Hub's; pip's index is PIP_INDEX_URL, and its password belongs into ~/.netrc",
}


class SecretError(ValueError):
    """An option refers to a variable that holds a secret."""


def register() -> None:
    """Let no option read a secret from the environment. Idempotent."""
    OmegaConf.register_new_resolver("oc.env", _env, replace=True)


def _env(name: str, *default: Any) -> Any:
    if secret_name(name):
        raise SecretError(name)
    value = oc.env(name, *default)
    if isinstance(value, str) and (value in secrets() or has_secrets(value)):
        raise SecretError(name)
    return value


def refusal(error: BaseException, option: str | None) -> InputError | None:
    """The error to tell, where `error` came of a variable that holds a secret."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SecretError):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else _refused(str(cause), option)


def check(config: Any, path: str = "") -> None:
    """Raises InputError for an option that holds a secret, and does not show it."""
    _check_team(config)
    known = secrets()
    for option, text in _texts(config, path):
        name = next((known[value] for value in known if value in text), None)
        if name is not None:
            raise _refused(name, option)
        if option not in _FREE and has_secrets(text):
            raise InputError(
                "this URL holds a password or a token, and options go to records, logs and process lists",
                option=option,
                hint=_PLACES.get(option, "say it without; " + _BY_NAME.format("NAME")),
            )
        if option.startswith(_SETTING):
            for assigned in _ASSIGNED.findall(text):
                if secret_name(assigned):
                    raise InputError(
                        f"it sets {assigned}, and options go to job files and process lists",
                        option=option,
                        hint=_BY_NAME.format(assigned)
                        if "setup" not in option
                        else f"read it there from a file of yours: export {assigned}=$(cat ~/.{assigned.lower()})",
                    )


def _check_team(config: Any) -> None:
    """The team store that the environment names is in messages and records as one that an option names."""
    store: Any = getattr(config, "store", None)
    if store is not None and has_secrets(locations.team(store.team) or ""):
        raise InputError(
            "the URL of the team store holds a password or a token, and it is told in messages and logs",
            option="store.team",
            hint=_PLACES["store.team"] if store.team else f"${locations.TEAM} names it: {_PLACES['store.team']}",
        )


def _refused(name: str, option: str | None) -> InputError:
    return InputError(
        f"it would hold the secret of {name}, and options go to keys, records, logs and process lists",
        option=option,
        hint=_BY_NAME.format(name),
    )


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from _texts(getattr(value, each.name), f"{path}.{each.name}" if path else each.name)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(str(name), path)
            yield from _texts(each, f"{path}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, path)
    elif isinstance(value, str):
        yield path, value
