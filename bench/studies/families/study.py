"""Runs every configuration and every pipeline, each in a process of a pool, and gathers what came of them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import torch
from tqdm import tqdm

from bench.studies.families.checks import CRASHED, Outcome, examine, line_of
from bench.studies.families.configurations import CONFIGURATIONS
from bench.studies.families.demands import DEMANDS
from bench.studies.families.image_pipelines import PIPELINES as IMAGE_PIPELINES
from bench.studies.families.pipeline_checks import CONFIGS, PipelineExamination
from bench.studies.families.video_pipelines import PIPELINES as VIDEO_PIPELINES

PIPELINES = IMAGE_PIPELINES | VIDEO_PIPELINES
_PROCESSES = 4  # beyond which starting them costs more than it saves


@dataclass(frozen=True, kw_only=True)
class Examined:
    """One configuration or pipeline, and the outcome of each demand on it."""

    name: str
    label: str  # the transformer's class, or the family
    kind: str  # the transformer's or the pipeline's class
    outcomes: dict[str, Outcome]
    calls: float | None = None  # of the transformer for each step, of a pipeline
    second: bool = False  # whether a second transformer takes over

    @property
    def faults(self) -> Iterator[str]:
        """Each wrong or crashed outcome in a line."""
        for demand, outcome in self.outcomes.items():
            if not outcome.allowed:
                yield f"{self.name}: {demand}: {outcome.verdict}: {outcome.why}"


def run(only: str = "", processes: int | None = None) -> tuple[list[Examined], list[Examined]]:
    """Examine classes and pipelines, in processes that share the work.

    Args:
        only: a part of their names; empty: all.
        processes: number of processes; None: the cores, at most 4.

    Returns:
        Configurations, then pipelines, in the tables' order.
    """
    names = [name for name in CONFIGURATIONS if only in name]
    pipelines = [name for name in PIPELINES if only in name]
    jobs: list[tuple[Callable[[str], Examined], str]] = [
        *[(_configuration, name) for name in names],
        *[(_pipeline, name) for name in pipelines],
    ]
    examined: dict[int, Examined] = {}
    workers = processes or min(os.cpu_count() or 1, _PROCESSES)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with (
        ProcessPoolExecutor(workers, context, initializer=_quiet) as pool,
        tqdm(total=len(jobs), unit="model", disable=None, file=sys.stderr) as bar,
    ):
        waiting = {pool.submit(job, name): index for index, (job, name) in enumerate(jobs)}
        for done in as_completed(waiting):
            examined[waiting[done]] = done.result()
            bar.update()
    ordered = [examined[index] for index in range(len(jobs))]
    return ordered[: len(names)], ordered[len(names) :]


def _quiet() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _configuration(name: str) -> Examined:
    configuration = CONFIGURATIONS[name]
    try:
        outcomes = examine(configuration)
    except Exception as error:
        outcomes = dict.fromkeys(DEMANDS, Outcome(CRASHED, f"without DQAR: {line_of(error)}"))
    return Examined(name=name, label=configuration.model, kind=configuration.model, outcomes=outcomes)


def _pipeline(name: str) -> Examined:
    tiny = PIPELINES[name]
    try:
        examination = PipelineExamination(tiny)
        outcomes, calls = examination.outcomes(), examination.calls
    except Exception as error:
        outcomes, calls = dict.fromkeys(CONFIGS, Outcome(CRASHED, f"without DQAR: {line_of(error)}")), None
    return Examined(
        name=name, label=tiny.family, kind=tiny.pipeline, outcomes=outcomes, calls=calls, second=tiny.second
    )
