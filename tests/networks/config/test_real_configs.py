"""What becomes of the config.json of checkpoints that people really have: which decoder, or which refusal."""

from __future__ import annotations

from typing import Any

import pytest

from tests.networks.real_configs import BUILT, REFUSED
from trtbuild.errors import InputError
from trtbuild.networks.config.architectures import audit, parse


def value_of(decoder: Any, path: str) -> Any:
    for name in path.split("."):
        decoder = getattr(decoder, name)
    return decoder


@pytest.mark.parametrize("name", BUILT)
def test_a_real_config_is_the_decoder_that_it_describes(name: str):
    config, wanted = BUILT[name]
    decoder = parse(config)
    found = {path: value_of(decoder, path) for path in wanted if path != "note"}
    assert found == {path: value for path, value in wanted.items() if path != "note"}
    assert decoder.hidden == config["hidden_size"]
    assert decoder.layers == config["num_hidden_layers"]


@pytest.mark.parametrize("name", BUILT)
def test_notes_are_on_what_one_might_take_to_count(name: str):
    config, wanted = BUILT[name]
    notes = audit(config)
    if "note" in wanted:
        assert any(wanted["note"] in note for note in notes)
    else:
        assert notes == ()


@pytest.mark.parametrize("name", REFUSED)
def test_a_real_config_is_refused_by_the_field_that_does_it(name: str):
    config, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        parse(config)
    said = f"{caught.value.message} {caught.value.hint or ''}"
    assert [word for word in words if word not in said] == []
    assert caught.value.option == "model.source"
