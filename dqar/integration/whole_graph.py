"""A whole generation of a static plan as one CUDA graph, which the host starts once, not once a kernel.

Where no decision depends on data, a generation is one fixed sequence: transformer, skipped steps, forecasts,
guidance and the solver's arithmetic, with its constants. One graph of all of it needs no grouping of steps
into kinds; what differs from one generation to the next (noise, labels) is copied into buffers that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dqar.config import DQARConfig
from dqar.errors import invalid_value
from dqar.integration.dit_wrapper import DQARDiTWrapper
from dqar.integration.manager import DQARManager
from dqar.integration.samplers import DQARSampler
from dqar.integration.sync import FirstLook

Make = Callable[[], Tensor]
Capture = Callable[[Make], Make]  # from what computes on fixed buffers to what does it again
WHERE = " in a graph of a whole generation"


def rerun(make: Make) -> Make:
    """Do not capture: the same work is done again by the host, which shows on any device what is captured.

    Args:
        make: Computes the output from buffers.

    Returns:
        `make` itself.
    """
    return make


def cuda_graph(make: Make) -> Make:
    """Capture work on the current CUDA device.

    Args:
        make: Computes the output from buffers, and never makes the host wait.

    Returns:
        Replays it; what it returns is one tensor, which the next replay writes over.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries allocate and choose kernels at the first run
        make()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = make()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


class GraphedSampler:
    """Samples latents as a `DQARSampler` does, by replays of one graph; bit-identical to the sampler.

    The graph is captured when the object is made: a sampler, scheduler or configuration that is changed
    later has no effect. What a summary reports is the captured generation.

    Args:
        sampler: Its decisions must depend on no data, and its solver must draw no noise.
        batch_size: Images of each call.
        capture: How it is captured; None = `cuda_graph`.

    Raises:
        ValueError: Naming what is not static and what is allowed; or the model is on no CUDA device.
    """

    def __init__(self, sampler: DQARSampler, batch_size: int, capture: Capture | None = None) -> None:
        if capture is None and sampler.model.device.type != "cuda":
            raise invalid_value("device", str(sampler.model.device), "a CUDA device" + WHERE)
        _check(sampler)
        self.sampler, self.batch_size = sampler, batch_size
        none = torch.zeros(batch_size, dtype=torch.long, device=sampler.model.device)
        self.labels = sampler.labels(batch_size, none)
        self.latents = sampler.noise(batch_size, torch.Generator(), None)  # torch's own is left alone
        sampler.scheduler.set_timesteps(sampler.config.num_inference_steps)
        self.timesteps = sampler.scheduler.timesteps.to(self.latents.device)
        self._replay = (capture or cuda_graph)(self._denoise)

    @torch.no_grad()
    def sample(
        self,
        class_labels: Tensor | Sequence[int],
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Sample final latents in the model's space.

        Args:
            class_labels: One per image, `[batch]`.
            generator: Draws the noise to start from; None = torch's default.
            latents: The noise to start from, `[batch, channels, height, width]`; None = drawn.

        Returns:
            The latents, `[batch, channels, height, width]`, in memory of their own.

        Raises:
            ValueError: Labels or latents do not fit the batch.
        """
        self.labels.copy_(self.sampler.labels(self.batch_size, class_labels))
        self.latents.copy_(self.sampler.noise(self.batch_size, generator, latents))
        return self._replay().clone()

    @torch.no_grad()
    def _denoise(self) -> Tensor:
        """The generation on the buffers: what is captured, so nothing in it may ask the device."""
        manager = _manager(self.sampler)
        if manager is not None:  # what it would read at the first call, the sampler knows
            first = float(self.sampler.scheduler.timesteps[0])
            manager.recogniser.known = FirstLook(first, self.sampler.guided)
        try:
            *_, final = self.sampler.trajectory(self.latents, self.labels, self.timesteps, None)
        finally:
            if manager is not None:
                manager.recogniser.known = None
        return final[: self.batch_size]


def _manager(sampler: DQARSampler) -> DQARManager | None:
    """The manager of a sampler that reuses."""
    model = sampler.model
    if not isinstance(model, DQARDiTWrapper) or not sampler.config.enable_dqar:
        return None
    return model.manager


def _check(sampler: DQARSampler) -> None:
    """Refuse what is not the same sequence each time."""
    config, solver = sampler.config, sampler.scheduler.config
    if config.eta:
        raise invalid_value("eta", config.eta, "0" + WHERE + ", which draws no noise")
    if config.return_trajectory:
        raise invalid_value("return_trajectory", True, "False" + WHERE)
    kind = str(getattr(solver, "algorithm_type", ""))
    if kind.startswith("sde"):
        raise invalid_value("algorithm_type", kind, "one without noise" + WHERE)
    manager = _manager(sampler)
    if manager is not None:
        _check_static(manager.config, manager.planner.policy is not None)


def _check_static(config: DQARConfig, has_policy: bool) -> None:
    allowed = "what depends on no data" + WHERE
    for field, depends in {
        "use_learned_policy": has_policy,
        "entropy_threshold": config.needs_entropy,
        "trace_entropy": config.trace_entropy,
        "schedule_type": config.adaptive,
        "deviation_tolerance": config.corrects,
    }.items():
        if depends:
            raise invalid_value(field, getattr(config, field), allowed)
    if config.forecast_order:  # its coefficients come from host memory that a replay would read again
        raise invalid_value("forecast_order", config.forecast_order, "0" + WHERE)
