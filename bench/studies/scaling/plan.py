"""On paper: how long an FID on many images takes on many GPUs, with the costs that were measured."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

IMAGES, CONFIGURATIONS, BATCH = 50_000, 10, 32
# Of the original specification's machine: an FID on 50,000 images of ten configurations takes 380 GPU hours.
IMAGE_S = 380 * 3600 / (IMAGES * CONFIGURATIONS)
FEATURES = 2048  # of Inception's pool3, float32
PER_IMAGE = 120  # bytes of a shard besides features: drift, PSNR, SSIM, LPIPS, a digest, a share of the worst
GPUS = (1, 8, 64, 512)
NODE = 8  # GPUs that fail together
REPAIR_S = 600.0  # until a lost node's workers are there again


@dataclass(frozen=True)
class Costs:
    """What the harness takes besides generations, in seconds."""

    task: float  # of the driver, for each task: handed out, its shards written
    start: float  # of a worker, once: its process and the model
    merge: float = 120.0  # of the driver, once: kernel distance, precision and recall of all configurations


@dataclass(frozen=True)
class Plan:
    """A FID on `images` of some configurations and their baseline, at a speed and a batch."""

    costs: Costs
    image_s: float = IMAGE_S
    images: int = IMAGES
    configurations: int = CONFIGURATIONS
    batch: int = BATCH

    @property
    def arms(self) -> int:
        """The configurations and the baseline, which is made once for all."""
        return self.configurations + 1

    @property
    def task_s(self) -> float:
        """Seconds of a task: a minute's batches of all arms, no fewer than one."""
        one = self.batch * self.arms * self.image_s
        return one * max(1, int(60 / one))

    @property
    def tasks(self) -> int:
        """Tasks of the whole."""
        batches = max(1, int(60 / (self.batch * self.arms * self.image_s)))
        return math.ceil(self.images / (self.batch * batches))

    @property
    def bytes_moved(self) -> int:
        """From the workers to the driver: no image travels."""
        return self.images * self.arms * (4 * FEATURES + PER_IMAGE)

    def seconds(self, gpus: int) -> float:
        """Add up start, rounds of tasks, and the merge; the driver's own work where that takes longer.

        Args:
            gpus: number of GPUs.

        Returns:
            Seconds of the whole plan.
        """
        rounds = math.ceil(self.tasks / gpus)
        work = max(rounds * (self.task_s + self.costs.task), self.tasks * self.costs.task + self.task_s)
        return self.costs.start + work + self.costs.merge

    def efficiency(self, gpus: int) -> float:
        """Compute the share of the GPUs' time that is generations.

        Args:
            gpus: number of GPUs.

        Returns:
            The share, in [0, 1].
        """
        return self.tasks * self.task_s / (gpus * self.seconds(gpus))

    @property
    def driver_limit(self) -> int:
        """GPUs that one driver keeps busy."""
        return int(self.task_s / self.costs.task)


@dataclass(frozen=True)
class Outcome:
    """A simulated run with failures."""

    seconds: float
    failures: int  # nodes lost
    again: int  # tasks made again


def simulate(plan: Plan, gpus: int, failures_an_hour: float = 1.0, seed: int = 0) -> Outcome:
    """Simulate the plan with nodes that fail at random times.

    Each takes the tasks under way on its GPUs along, which are made again, and is back after REPAIR_S. What
    it had finished is in the store.

    Args:
        plan: what is to be done.
        gpus: that do it.
        failures_an_hour: of nodes, on the whole cluster.
        seed: of the times and the nodes.

    Returns:
        Seconds of the plan, nodes lost and tasks made again.
    """
    rng, size = random.Random(seed), min(NODE, gpus)
    nodes = max(1, gpus // size)
    free = [(plan.costs.start, worker) for worker in range(gpus)]
    heapq.heapify(free)
    fails = [(rng.expovariate(failures_an_hour / 3600), rng.randrange(nodes))]
    left, again, end = plan.tasks, 0, 0.0
    cost = plan.task_s + plan.costs.task
    while left:
        start, worker = heapq.heappop(free)
        while fails[-1][0] < start + cost:
            fails.append((fails[-1][0] + rng.expovariate(failures_an_hour / 3600), rng.randrange(nodes)))
        mine = (when for when, node in fails if node == worker // size)
        hit = next((when for when in mine if start <= when < start + cost), None)
        if hit is None:
            left, end = left - 1, max(end, start + cost)
            heapq.heappush(free, (start + cost, worker))
        else:
            again += hit > start
            heapq.heappush(free, (hit + REPAIR_S + plan.costs.start, worker))
    met = sum(when < end for when, _ in fails)
    return Outcome(end + plan.costs.merge, met, again)
