"""`DecodePath`: the short way of a step in which every row computes one token and samples.

The batch state goes straight into a CUDA graph's input, and a row's token from the graph to the host: no tensors are
built on the way. It takes plain rows, greedy or random; whatever asks for more goes the long way.
"""

from __future__ import annotations

import numpy as np
import torch

from vcore.interfaces.step import SchedulerOutput
from vcore.runner.batch_state import BatchState
from vcore.runner.cuda_graphs import DecodeGraphs
from vcore.runner.gumbel import position_keys
from vcore.runner.launched_step import HostCopies, LaunchedStep
from vcore.runner.sampler import Sampled
from vcore.runner.sampling_state import Need, SamplingState

__all__ = ["DecodePath"]


class DecodePath:
    """Launches such steps; changes the batch state as the long way would."""

    def __init__(self, graphs: DecodeGraphs, state: BatchState, sampling: SamplingState, device: torch.device) -> None:
        self._graphs = graphs
        self._state = state
        self._sampling = sampling
        self._device = device

    def launch(self, output: SchedulerOutput, num_shared_blocks: int = 0) -> LaunchedStep | None:
        """Launch the step, whose difference was applied; None, with nothing changed, if it must go the long way.

        `num_shared_blocks` is what attention is told, no more than `SchedulerOutput.num_shared_blocks`.
        """
        rows = output.rows.astype(np.int64)
        count, state, sampling = rows.size, self._state, self._sampling
        if output.num_decodes != count or not self._graphs.takes(count) or not output.samples.all():
            return None
        temperature = keys = None
        if sampling.num_flagged:
            flags = sampling.flags[rows]
            needs = int(np.bitwise_or.reduce(flags))
            if needs & ~Need.RANDOM:
                return None
            if needs:
                temperature = np.where(flags, sampling.temperature[rows], np.float32(0.0))
                keys = position_keys(sampling.key[rows], state.num_tokens[rows])
        sampled = self._graphs.sample(rows, temperature, keys, num_shared_blocks)
        if sampled is None:
            return None
        copies = HostCopies(self._device)
        on_host = copies.take(sampled)
        copies.close()
        step = LaunchedStep(
            step_id=output.step_id,
            state=state,
            rows=rows,
            sampled=Sampled(on_host[0, :count], on_host[1].view(torch.float32)[:count]),
            copies=copies,
        )
        state.advance(rows, output.num_tokens)
        step.deferred = (state.epoch[rows], state.num_tokens[rows])
        state.append_unknown(rows)
        return step
