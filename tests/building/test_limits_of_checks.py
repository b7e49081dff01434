"""How long an engine may take to be loaded and to speak: by its size and by what it is asked, unless the user says."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli import Project
from trtbuild.building.runner import loading_limits
from trtbuild.executors.process import StepLimits

FOUR_HOURS = StepLimits(4 * 3600, None, None)


def test_a_small_engine_is_not_waited_for_as_a_large_one_is() -> None:
    small = loading_limits(FOUR_HOURS, "check", None, 16, 150_000_000)
    large = loading_limits(FOUR_HOURS, "check", None, 16, 16_000_000_000)
    assert 300 < small.timeout_seconds < 15 * 60 < large.timeout_seconds < FOUR_HOURS.timeout_seconds
    assert small.option == large.option == "check.timeout_minutes"
    longer = loading_limits(FOUR_HOURS, "generate", None, 1000, 150_000_000)
    assert longer.timeout_seconds > small.timeout_seconds
    assert longer.option == "generate.timeout_minutes"


def test_a_step_s_own_limit_is_the_most() -> None:
    short = StepLimits(60, None, None)
    assert loading_limits(short, "check", None, 16, 10**12) == short
    assert loading_limits(FOUR_HOURS, "check", None, 16, 10**12) == FOUR_HOURS


def test_what_the_user_says_counts() -> None:
    asked = loading_limits(FOUR_HOURS, "check", 600.0, 16, 10)
    assert (asked.timeout_seconds, asked.option) == (36_000, "check.timeout_minutes")


def test_a_check_that_takes_longer_is_ended_and_told(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild(f"model.source={tiny_llama}", "quant=int8", "check.timeout_minutes=0.0005")
    assert done.code == 1
    assert "error: check.timeout_minutes: step check: not done after 0.0005 minutes" in done.err
    assert "hint: raise check.timeout_minutes" in done.err
    assert project.leftovers() == []


def test_an_answer_that_takes_longer_is_ended_and_told(project: Project, tiny_llama: Path) -> None:
    words = [f"model.source={tiny_llama}", "quant=int8", "check=none", "prompt=why"]
    done = project.trtbuild("run", *words, "generate.timeout_minutes=0.0005")
    assert done.code == 1
    assert "error: generate.timeout_minutes: " in done.err


def test_a_limit_is_a_time(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild("plan", f"model.source={tiny_llama}", "check.timeout_minutes=0")
    assert done.code == 2
    assert "check.timeout_minutes" in done.err
