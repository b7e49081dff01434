"""Fixtures that every test may use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.networks import tiny_models
from tests.support import tiny
from tests.support.cli import Project

# A shell ignores SIGINT for what it starts in the background, and a program passes that on to its children: then no
# test of an interrupt could pass. With a handler here they start with the default again.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What one process must do in a row begins first, then what is slow: at the end of all none waits for another."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("xdist_group", "slow")])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, as a folder of safetensors. Tests read it; those that spoil it copy it first."""
    return tiny.write_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers as a GGUF, with a byte-level tokenizer."""
    tokens = ["<unk>", "<s>", "</s>", *tiny.byte_characters(), "ab"]
    settings = tiny_models.config(vocab_size=len(tokens))
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_models.save_gguf(path, settings, tiny_models.weights(settings), tokens=tokens)
    return path


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One store for the demo model, so that it is downloaded once (tests that use it are one xdist group)."""
    return Project(tmp_path_factory.mktemp("smollm2"))
