"""The check of a sweep's job: this machine computes the key that it shall build, and has the requested hardware."""

from __future__ import annotations

from trtbuild.config.schema import Config
from trtbuild.errors import InputError
from trtbuild.planning.plan import Plan
from trtbuild.sweeps.work import reads_hardware
from trtbuild.targets import gpu_slots, gpus_here


def check(plan: Plan, config: Config) -> None:
    """Raises InputError, before any work, if this machine would build something else than the sweep planned."""
    wanted, recipe = config.sweep.key, plan.recipe
    if wanted is None:
        return
    if plan.final.key != wanted:
        raise InputError(
            f"{plan.final.name} has the key {plan.final.key[:12]} here, and {wanted[:12]} was asked for",
            option="sweep.key",
            hint="the machines differ in trtbuild's release, in a config or in a fact that the target leaves open; "
            "`trtbuild plan output=json` shows the fields on each",
        )
    job = config.target.job
    if recipe.target.kind != "cuda" or (job.gres is None and job.accelerator is None):
        return  # a GPU that a step works on is compared by the step
    if reads_hardware(plan.final) and not gpu_slots(recipe.target):
        gpu = recipe.target.gpu
        raise InputError(
            f"this job was given {gpus_here()}, and {gpu.name if gpu else 'another GPU'} was asked for",
            option=f"target={recipe.target.name}",
            hint="see target.job.gres and target.job.constraint: they must lead to that GPU",
        )
