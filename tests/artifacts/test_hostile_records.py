"""Records that say anything about how they were made: what explains, estimates and rebuilds ends in its own words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.facts import test_key
from tests.fuzz import corpus
from trtbuild.artifacts import provenance
from trtbuild.artifacts.chain import Located
from trtbuild.artifacts.history import History, HistorySource
from trtbuild.building import rebuild
from trtbuild.config import schema
from trtbuild.errors import TrtbuildError, bounded
from trtbuild.executors.process import WorkerResult
from trtbuild.planning.plan import Plan, make_plan
from trtbuild.report import document, explanations, records
from trtstore import Store
from trtstore.upkeep.maintenance import Maintenance

PLAN = make_plan(test_key.RECIPE)
OTHER = make_plan(test_key.replaced(quant=dataclasses.replace(test_key.QUANT, group_size=64)))

CONFIG = schema.Config(executor=schema.ExecutorConf(), store=schema.StoreConf())


def predicate(made: Plan) -> dict[str, Any]:
    ran = WorkerResult({"loss": {"original": 1.0, "quantized": 1.5, "tokens": 9}}, 5.0, 1000, Path("log"))
    return provenance.predicate(made.final, made, ran, None, 1e9, 1e9 + 5)


def weird(every: int) -> list[dict[str, Any]]:
    good = json.loads(json.dumps(predicate(OTHER)))
    changed = [json.loads(data) for _, data in corpus.spoilt(good, corpus.LAWFUL)]
    return [each for each in changed if isinstance(each, dict)][::every]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", durability="fast")


def keep(store: Store, number: int, said: dict[str, Any]) -> str:
    key = f"{number:064x}"
    with store.scratch() as work:
        (work / "out").mkdir()
        (work / "out" / "file").write_text("x")
        labels = PLAN.final.labels
        store.publish(key, work / "out", predicate_type="p", predicate=said, labels=labels)
    return key


def test_the_nearest_build_may_say_anything(store: Store) -> None:
    planned = PLAN.final
    keys = [keep(store, number, said) for number, said in enumerate(weird(5))]
    summaries = {each.key: each for each in Maintenance(store).catalog.summaries()}
    near_ones = 0
    for key in keys:
        history = History([HistorySource(store, True, lambda _, key=key: [summaries[key]])], pytest.fail)
        near = history.nearest(planned)
        for model_bytes in (1, 10**12):
            estimate = history.estimate(planned, model_bytes)
            if estimate is not None:
                assert 0 <= estimate.seconds < 1e25
                assert estimate.peak_memory_bytes is None or estimate.peak_memory_bytes >= 0
        if near is None:
            continue
        near_ones += 1
        found = Located(None, here=False)
        said = list(explanations.lines(PLAN, found, near, ()))
        assert all(bounded(line).isprintable() for line in said)
        json.dumps(document.explanation(PLAN, found, near))
        hit = Located(near.record, here=True)
        assert all(bounded(line).isprintable() for line in explanations.lines(PLAN, hit, None, ()))
        assert all(line.isprintable() for line in records.lines(near.record))
    assert near_ones > 50


def test_a_receipt_may_say_anything(store: Store) -> None:
    refused = 0
    for number, said in enumerate(weird(7)):
        key = keep(store, number, said)
        try:
            found = rebuild.receipt(store, key, CONFIG)
            found._model()
        except TrtbuildError as error:
            refused += 1
            assert all(line.isprintable() for line in error.lines())
    assert refused > 50
