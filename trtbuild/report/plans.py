"""A plan in words: what is there, what would run, and what that is likely to take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from trtbuild.artifacts import provenance
from trtbuild.artifacts.chain import Located
from trtbuild.artifacts.history import Estimate, NearestBuild
from trtbuild.building.preview import StepPreview, ToolchainState
from trtbuild.planning.plan import Plan, PlannedStep
from trtbuild.targets import Target
from trtstore import format_seconds, format_size, format_table

Sharers: TypeAlias = tuple[PlannedStep, tuple[str, ...]]  # a step, and the models that share its result


def lines(
    plan: Plan, previews: Sequence[StepPreview], tools: Sequence[ToolchainState], notes: Sequence[str]
) -> Iterator[str]:
    """What `trtbuild plan` prints."""
    model = plan.recipe.model
    yield (
        f"model     {model.label}, {model.architecture or 'architecture in the file'}, {format_size(model.bytes)}, "
        f"identity {model.identity[:12]}"
    )
    yield f"quant     {plan.recipe.quant.scheme}"
    yield f"target    {target_words(plan.recipe.target)}"
    versions = ", ".join(f"{tool} {version}" for tool, version in plan.toolchain.items())
    yield f"compiler  {plan.recipe.tools.name}: {versions}"
    yield ""
    rows = [
        [step.planned.name, step.planned.key[:12], where(step.located), _will(step, plan), _takes(step)]
        for step in previews
    ]
    yield from format_table(["step", "key", "store", "will", "takes"], rows)
    yield ""
    yield from shared([(step.planned, step.sharers) for step in previews])
    yield from _summary(previews)
    yield from missing_tools(tools)
    for words in notes:
        yield f"note: {words}"


def shared(sharers: Sequence[Sharers]) -> Iterator[str]:
    """The steps whose artifacts other models share."""
    for step, models in sharers:
        if models:
            count = len(models)
            named = ", ".join(models[:5]) + (f" and {count - 5} more" if count > 5 else "")
            yield f"{step.name} {step.key[:12]} is shared with {count} model{'s' * (count > 1)}: {named}"


def missing_tools(tools: Sequence[ToolchainState]) -> Iterator[str]:
    """Which toolchains will be fetched before a step runs."""
    for each in tools:
        if each.state == "missing":
            yield f"The toolchain {each.title} of {' and '.join(each.steps)} is missing{_fetched(each)}."


def _fetched(toolchain: ToolchainState) -> str:
    return (
        "" if toolchain.fetch is None else f": about {format_size(toolchain.fetch)} will be fetched and installed first"
    )


def target_words(target: Target) -> str:
    """What the target is and where each fact comes from: a line for the hardware, and for a GPU one for its driver."""
    origins = target.origins or {}
    if target.gpu is None:
        exact = "" if target.microarchitecture == target.level else f" ({target.microarchitecture})"
        return f"{target.name}: {target.level}{exact}, {target.arch} ({origins.get('level')}); {target.here}"
    gpu = target.gpu
    hardware = {
        "gpu": gpu.name,
        "mig": gpu.mig and f"MIG {gpu.mig}",
        "memory_gb": f"{gpu.memory_gb} GB" if gpu.memory_gb else None,
        "compute_capability": f"compute capability {gpu.compute_capability}",
        "sm_count": f"{gpu.sm_count} SMs" if gpu.sm_count else None,
        "arch": target.arch,
    }
    software = {"driver": f"driver {target.driver}", "cuda": f"CUDA {target.cuda}"}
    more = "" if target.gpus == 1 else f", {target.gpus} GPUs"
    return (
        f"{target.name}: {_with_origins(hardware, origins)}{more}\n"
        f"{'':<10}{_with_origins(software, origins)}; {target.here}"
    )


def _with_origins(words: Mapping[str, str | None], origins: Mapping[str, str]) -> str:
    """The words of facts, and after those that have one origin this: "A, B (detected), C (target.cuda=)"."""
    told = [(word, origins.get(name, "")) for name, word in words.items() if word]
    groups = [(origin, [word for word, _ in each]) for origin, each in groupby(told, key=itemgetter(1))]
    return ", ".join(f"{', '.join(each)} ({origin})" for origin, each in groups)


def where(located: Located) -> str:
    """`hit`, `miss`, or `hit in` the other store that has it."""
    if located.record is None:
        return "miss"
    return "hit" if located.here else f"hit in {located.also}"


def _will(step: StepPreview, plan: Plan) -> str:
    if step.runs:
        return "run" if step.obstacle is None else "not here"
    return "use" if step.planned is plan.final else "-"


def _takes(step: StepPreview) -> str:
    record = step.located.record
    if record is not None:
        took = provenance.stats(record).get("seconds")
        return format_size(record.bytes) + (f", took {format_seconds(took)}" if took else "")
    if not step.runs:
        return ""
    return "no basis" if step.estimate is None else f"about {_amounts(step.estimate)}"


def _amounts(estimate: Estimate) -> str:
    peak = f", {format_size(estimate.peak_memory_bytes)} of memory" if estimate.peak_memory_bytes else ""
    return f"{format_seconds(estimate.seconds)}, {format_size(estimate.bytes)}{peak}"


def _summary(previews: Sequence[StepPreview]) -> Iterator[str]:
    running = [step for step in previews if step.runs]
    if not running:
        yield "Nothing will run: this is a hit."
        return
    known = [step.estimate for step in running if step.estimate is not None]
    total = (
        f"about {format_seconds(sum(e.seconds for e in known))} and {format_size(sum(e.bytes for e in known))}"
        if known
        else ""
    )
    unknown = [step.planned.name for step in running if step.estimate is None]
    elsewhere = [step for step in running if step.obstacle is not None]
    steps = f"{len(running)} step{'s' if len(running) > 1 else ''} to run{' elsewhere' if elsewhere else ''}"
    yield f"{steps}: {total}." if total else f"{steps}."
    if unknown:
        which = f" for {' and '.join(unknown)}" if total else ""
        yield f"No time estimate{which}: nothing similar has been built yet."
    for step in running:
        if step.estimate is not None:
            yield f"  {step.planned.name}: {_basis(step.estimate)}"
    for step in elsewhere:
        yield f"  {step.planned.name}: {step.obstacle}"
    yield "`trtbuild explain` with the same options says why it misses."


def _basis(estimate: Estimate) -> str:
    near = estimate.basis
    scaled = "" if estimate.scale == 1.0 else f", times {estimate.scale:.3g} for the checkpoint's size"
    return f"as {called(near)} took{scaled}; {differing(near)}"


def called(near: NearestBuild) -> str:
    """An earlier build by its key and its labels."""
    labels = near.record.labels
    words = [labels[name] for name in ("model", "quant", "target") if labels.get(name)]
    return f"{near.record.key[:12]} ({', '.join(words)})" if words else near.record.key[:12]


def differing(near: NearestBuild, most: int = 3) -> str:
    """`quant.weights and 2 more fields differ`."""
    names = [difference.field for difference in near.differences]
    shown, more = names[:most], len(names) - most
    if more > 0:
        return f"{', '.join(shown)} and {more} more differ"
    if len(shown) == 1:
        return f"{shown[0]} differs"
    return f"{', '.join(shown[:-1])} and {shown[-1]} differ" if shown else "nothing differs"
