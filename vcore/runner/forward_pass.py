"""`ForwardPass`: a loaded model and its cache; from a step's batch to hidden states, and from those to logits.

    every row computes one token       a CUDA graph of all of it           `DecodeGraphs`
    few tokens otherwise               pieces around attention             `Segments`
    anything else                      kernel by kernel

The three give the same. It knows nothing of sampling, and of rows only where graphs read their state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch

from vcore.errors import EngineError
from vcore.interfaces.attention import AttentionBackend, AttentionContext, AttentionMetadata, GroupContext
from vcore.interfaces.model import Model
from vcore.interfaces.step import SchedulerOutput
from vcore.kv_cache.layout import build_cache_layout
from vcore.ops.compile_ahead import AheadCompiler
from vcore.runner.batch_state import BatchState
from vcore.runner.cuda_graphs import DecodeGraphs
from vcore.runner.decode_input import DecodeInput
from vcore.runner.input_builder import ForwardBatch
from vcore.runner.memory import allocate_caches, available_host_bytes, cuda_cache_bytes
from vcore.runner.null_steps import null_metadata
from vcore.runner.profile_run import profile_run
from vcore.runner.recorder import GraphRecorder
from vcore.runner.rehearsal import Rehearsal
from vcore.runner.segment_sizes import segment_sizes, worthwhile_tokens
from vcore.runner.segments import Segments, Step
from vcore.runner.settings import RunnerSettings

__all__ = ["ForwardPass"]

logger = logging.getLogger(__name__)


class ForwardPass:
    """Runs the model. It has no cache until `initialize_cache`."""

    def __init__(
        self,
        model: Model,
        attention: AttentionBackend,
        settings: RunnerSettings,
        state: BatchState,
        last_token_ids: torch.Tensor,
        compiler: AheadCompiler,
    ) -> None:
        """Join the parts.

        Args:
            model: loaded.
            attention: the backend that its layers were built with.
            settings: resolved settings.
            state: the batch's tokens and blocks, read by graphs.
            last_token_ids: int64 [max_num_seqs] on the device: what each row sampled last, read and written by graphs.
            compiler: compiles what steps may launch, once there is a cache.
        """
        self._model = model
        self._settings = settings
        self._state = state
        self._last_token_ids = last_token_ids
        self._compiler = compiler
        self.attention = attention
        self.layout = build_cache_layout(model.kv_cache_specs(), settings.block_size)
        """How the model's layers share blocks."""
        self._group_of_layer = self.layout.group_of_layer
        self._segment_sizes = segment_sizes(min(settings.max_segment_tokens, worthwhile_tokens(model)))
        self.caches: list[torch.Tensor] | None = None
        """Of each layer that keeps one."""
        self.graphs: DecodeGraphs | None = None
        """Graphs of decode steps, if there are any."""
        self._segments: Segments | None = None
        self._is_compiled = False
        """Whether the kernels of steps are."""

    def cache_bytes_available(self) -> int:
        """Bytes that this rank can give to the KV cache; on CUDA, found by runs of the largest steps."""
        settings = self._settings
        if settings.device.type != "cuda":
            share = int(available_host_bytes() * settings.memory_fraction)
            return min(share, settings.cpu_cache_bytes_limit)
        if not self._is_compiled:
            self.initialize_cache(1)
            self.drop_cache()
        peak = profile_run(self._model, self.attention, settings, self.layout)
        return cuda_cache_bytes(settings.device, settings.memory_fraction, peak + self._recorded_bytes())

    def initialize_cache(self, num_blocks: int) -> None:
        """Allocate the cache of `num_blocks` blocks, the null block among them.

        The first time, all kernels are compiled that steps may launch.

        Raises:
            CapacityError: memory does not hold it; the message has the numbers.
        """
        self.drop_cache()
        specs, settings, layout = self._model.kv_cache_specs(), self._settings, self.layout
        self.caches = allocate_caches(specs, layout, num_blocks, settings.block_size, settings.device)
        recorder = GraphRecorder()
        if sizes := settings.graph_sizes:
            given = DecodeInput(self._state, max_size=sizes[-1], windows=layout.windows, device=settings.device)
            compute = (self._compute, self.compute_logits)
            self.graphs = DecodeGraphs(*compute, given, self._last_token_ids, sizes, recorder=recorder)
        if self._segment_sizes:
            self._segments = Segments(
                self._model,
                recorder,
                self._segment_sizes,
                self._group_of_layer,
                num_groups=len(layout.windows),
                device=settings.device,
            )
        if not self._is_compiled:
            self._compiler.run(self._rehearse)
            self._is_compiled = True

    @torch.inference_mode()
    def _rehearse(self) -> None:
        """Launch the kernels of any step that there may be, with whatever cache there is."""
        arguments = (self._model, self.compute_logits, self.attention, self._settings, self.layout, self.caches or ())
        Rehearsal(*arguments).run(beyond=max(self._settings.graph_sizes, default=0))
        if self.graphs is not None:
            self.graphs.rehearse()

    @torch.inference_mode()
    def record_all(self) -> None:
        """Record now what steps would record as they first need it; nothing where nothing is recorded."""
        if self.graphs is None and self._segments is None:
            return
        begin, num_graphs, num_sizes = time.perf_counter(), 0, 0
        if self.graphs is not None:
            num_graphs = self.graphs.capture_all(shares=self._shares())
        if self._segments is not None:
            num_sizes = self._segments.record_all(self._null_step)
        seconds = time.perf_counter() - begin
        logger.info("captured %d graphs and the segments of %d sizes in %.1f s", num_graphs, num_sizes, seconds)

    def drop_cache(self) -> None:
        """Free the cache, and what was recorded with its addresses."""
        for recorded in (self.graphs, self._segments):
            if recorded is not None:
                recorded.close()
        self.graphs = self._segments = self.caches = None

    def hidden_states(self, output: SchedulerOutput, batch: ForwardBatch, num_shared_blocks: int) -> torch.Tensor:
        """Launch the model on `batch`; `num_shared_blocks` is what attention is told that decode rows share.

        Returns:
            [num_tokens, hidden_size], valid until the next call.
        """
        hidden_states = None
        if self.graphs is not None and output.num_decodes == batch.rows.size and self.graphs.takes(batch.rows.size):
            hidden_states = self.graphs.run(batch.rows, num_shared_blocks)
        if hidden_states is None and self._segments is not None and self._segments.takes(batch.input_ids.shape[0]):
            hidden_states = self._segments.run(self._step(batch.input_ids, batch.positions, batch.groups))
        if hidden_states is None:
            hidden_states = self._compute(batch.input_ids, batch.positions, batch.groups)
        return hidden_states

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits [num_rows, vocab_size]; the caller's to change.

        Raises:
            EngineError: the model gives them another width.
        """
        logits = self._model.compute_logits(hidden_states)
        if logits.shape[1] != self._settings.vocab_size:
            raise EngineError(
                f"the model gave logits of {logits.shape[1]} tokens, but its configuration has a vocabulary of "
                f"{self._settings.vocab_size}; compute_logits must return [num_rows, vocab_size]"
            )
        return logits

    def shared_blocks(self, output: SchedulerOutput) -> int:
        """How many leading blocks attention is told that the decode rows share; 0 if it has no use for them."""
        count = output.num_shared_blocks
        return count if count and self.attention.uses_shared_prefix(output.num_decodes, count) else 0

    def _step(self, input_ids: torch.Tensor, positions: torch.Tensor, groups: Sequence[AttentionMetadata]) -> Step:
        contexts = [GroupContext(self.attention.plan(metadata), metadata) for metadata in groups]
        attn = AttentionContext([contexts[index] for index in self._group_of_layer], self.caches or ())
        return Step(input_ids, positions, contexts, attn)

    def _compute(
        self, input_ids: torch.Tensor, positions: torch.Tensor, groups: Sequence[AttentionMetadata]
    ) -> torch.Tensor:
        hidden_states: torch.Tensor = self._model(input_ids, positions, self._step(input_ids, positions, groups).attn)
        return hidden_states

    @torch.inference_mode()
    def _recorded_bytes(self) -> int:
        """What graphs and segments will take, found with a cache of the null block alone."""
        settings = self._settings
        if not settings.graph_sizes and not self._segment_sizes:
            return 0
        self.initialize_cache(1)
        num_bytes = 0
        if self.graphs is not None:
            num_bytes += self.graphs.measure(shares=self._shares())
        if self._segments is not None:
            num_bytes += self._segments.measure(self._null_step)
        self.drop_cache()
        return num_bytes

    def _shares(self) -> bool:
        """Whether attention may be told of shared blocks."""
        return self.attention.uses_shared_prefix(self._settings.max_num_seqs, self._settings.max_blocks_per_row)

    def _null_step(self, num_tokens: int) -> Step:
        """Tokens that belong to nobody."""
        groups = [null_metadata(self._settings, num_tokens, window) for window in self.layout.windows]
        zeros = torch.zeros(groups[0].num_tokens, dtype=torch.int64, device=self._settings.device)
        return self._step(zeros, zeros, groups)
