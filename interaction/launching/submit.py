"""Submitting a job, or printing all that submitting it would do.

In: a `Job`, a `Target`. Out: what was said or done. Printing touches nothing: no file, no folder,
no other program.
"""

import dataclasses
import enum

from interaction.launching import jobset, local, skypilot, slurm
from interaction.launching.job import Job, Resources


class Target(enum.Enum):
    """Where a job runs."""

    SLURM = "slurm"
    LOCAL = "local"
    JOBSET = "jobset"
    SKYPILOT = "skypilot"


class Through(enum.Enum):
    """Who hands a job to SLURM."""

    SBATCH = "sbatch"
    SUBMITIT = "submitit"


# What of `Job` and `Resources` a target has no use for.
_UNUSED = {
    Target.SLURM: ("image", "volumes", "topology"),
    Target.LOCAL: (
        "image", "volumes", "topology", "queue", "account", "accelerator", "per_node", "memory",
        "cpus", "minutes",
    ),
    Target.JOBSET: ("account",),
    Target.SKYPILOT: ("account", "queue", "topology", "minutes"),
}  # fmt: skip


def check(job: Job, target: Target, through: Through = Through.SBATCH) -> None:
    """Nothing asked for would be left out in silence.

    Raises:
        ValueError: names what has no meaning there.
    """
    given = {**vars(job.resources), **vars(job)}
    usual = {f.name: f.default for kind in (Job, Resources) for f in dataclasses.fields(kind)}
    for name in _UNUSED[target]:
        if given[name] != usual[name]:
            option = {"volumes": "volume"}.get(name, name.replace("_", "-"))
            raise ValueError(f"--{option} {given[name]} has no meaning on {target.value}")
    if job.serving and target in (Target.JOBSET, Target.SKYPILOT):
        if not job.serving.is_reached_from_elsewhere:
            raise ValueError(
                f"--host {job.serving.host} is not reached from outside of its machine; on "
                f"{target.value} a server listens on 0.0.0.0"
            )
        if job.resources.minutes != usual["minutes"]:
            raise ValueError(
                f"--minutes {job.resources.minutes} has no meaning for a server on {target.value}"
            )
    if through is not Through.SBATCH and target is not Target.SLURM:
        raise ValueError(f"--through {through.value} has no meaning on {target.value}")


def plan(job: Job, target: Target, through: Through = Through.SBATCH) -> str:
    """All that `submit` would run or hand over, to read or to take elsewhere."""
    check(job, target, through)
    if target is Target.LOCAL:
        return local.plan(job)
    job = job.apart()
    if target is Target.JOBSET:
        return f"# kubectl apply -f - <<END\n{jobset.render(job)}# END\n"
    if target is Target.SKYPILOT:
        return "".join(
            f"# sky jobs launch --yes --detach-run FILE, where FILE is\n{text}"
            for text in skypilot.render(job)
        )
    if through is Through.SBATCH:
        return f"# sbatch --parsable <<'END'\n{slurm.script(job)}# END\n"
    lines = [f"# submitit.AutoExecutor({job.logs!r}, cluster='slurm'), with"]
    lines += [f"#   {name} = {value!r}" for name, value in slurm.parameters(job).items()]
    lines += ["# in every process, from " + job.root + ":"]
    lines += [job.line(index) for index in range(len(job.commands))]
    return "\n".join(lines) + "\n"


def submit(job: Job, target: Target, through: Through = Through.SBATCH) -> int:
    """Submits the job and says its number; on this machine runs it.

    Returns:
        The exit status for the caller.
    """
    check(job, target, through)
    if target is Target.LOCAL:
        return local.run(job)
    job = job.apart()
    if target is Target.JOBSET:
        print(jobset.submit(job))
    elif target is Target.SKYPILOT:
        print(skypilot.submit(job))
    elif through is Through.SBATCH:
        print(slurm.submit(job))
    else:
        print("\n".join(each.job_id for each in slurm.submit_with_submitit(job)))
    return 0
