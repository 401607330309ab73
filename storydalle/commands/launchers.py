"""Launchers of a sweep's jobs: which there are, and how many jobs one runs at a time."""

import shutil
from typing import Any

from storydalle.files.conf import config_names
from storydalle.mistakes import UserError, nearest

SUBMITIT = ("submitit_slurm", "submitit_local")  # launchers of the extra slurm


def check_launcher(target: str) -> None:
    """Refuse to hand jobs to a SLURM that is not there; ``target`` is the launcher's class."""
    if "Slurm" in target and shutil.which("sbatch") is None:
        raise UserError("no SLURM here for this launcher (no sbatch): go to a cluster, or take hydra/launcher=two_jobs")


def no_launcher(name: str) -> str:
    """The remedy for an unknown or missing launcher of a sweep's jobs."""
    if name in SUBMITIT:
        return 'it hands jobs to SLURM: pip install "storydalle[slurm]"'
    return nearest(name, [*config_names("hydra/launcher"), "basic", "joblib", *SUBMITIT])


def workers_of(launcher: Any) -> int:
    """How many jobs a launcher runs at a time on this machine; 0 if it says itself what each may use."""
    if "joblib" not in launcher._target_:
        return 0
    from joblib import effective_n_jobs

    return int(effective_n_jobs(launcher.n_jobs))


def fit_workers(launcher: Any, num_jobs: int) -> None:
    """Let joblib start no worker for which there is no job: it would outlive a launcher that is killed."""
    settings = getattr(launcher, "joblib", None)
    if settings is None:
        return
    from joblib import effective_n_jobs

    settings["n_jobs"] = min(int(effective_n_jobs(settings["n_jobs"])), num_jobs)
