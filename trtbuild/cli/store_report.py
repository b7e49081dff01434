"""`trtstore report`: a page about the engines of a whole store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trtbuild.config import locations
from trtbuild.errors import InputError, StoreError, TrtbuildError
from trtbuild.report import page, rows, terminal
from trtstore import Maintenance, Store, StoreFailure


def main(words: Sequence[str] | None = None) -> int:
    """Run `trtstore report`; returns its exit code. `words` are those after the verb."""
    parser = argparse.ArgumentParser(
        prog="trtstore report",
        description="Write a page about the engines of a store: size, speed, what they took. Needs the extra `report`.",
    )
    parser.add_argument("folder", metavar="DIR", help="for index.html, points.csv and report.json")
    parser.add_argument("--store", metavar="PATH", help="default: $TRTBUILD_STORE, else the user's cache folder")
    parser.add_argument("--step", default="engine", help="artifacts of this step (default: engine)")
    asked = parser.parse_args(sys.argv[2:] if words is None else words)
    try:
        print(_write(locations.root(asked.store), asked.step, asked.folder))
    except StoreFailure as failure:
        terminal.print_error(StoreError(failure.message, option="--store", hint=failure.hint))
        return StoreError.exit_code
    except TrtbuildError as error:
        terminal.print_error(error)
        return error.exit_code
    return 0


def _write(root: Path, step: str, folder: str) -> Path:
    """Raises InputError, StoreFailure."""
    page.check(folder)
    if not root.is_dir():
        raise InputError(f"there is no store at {root}", option="--store")
    store = Store.open(root)
    summaries = [each for each in Maintenance(store).catalog.summaries() if each.labels.get("step") == step]
    records = [store.lookup(each.key) for each in summaries]
    made = rows.with_pareto([rows.of_record(record) for record in records if record is not None])
    made.sort(key=lambda row: (row.model, row.quant, row.target))
    what = f"{len(made)} {step}{'' if len(made) == 1 else 's'}"
    return page.write(page.ReportPage(title="trtbuild store", summary=f"{what} in {root}", rows=made), Path(folder))
