"""`ModelRunner`: what runs on one rank. It joins batch state, input builder, model, attention and sampler.

    launch(output)
        apply the difference         batch state, sampling state
        decode path                  if it takes the step, nothing more is to do (CUDA graphs)
        build                        the step's tensors, one copy to the device
        launch_forward               hidden states: `ForwardPass`
        launch_sampling              logits of the rows that sample, tokens; vectors of those that pool; copies to host
    LaunchedStep.collect()           the tokens and vectors

It knows nothing of scheduling, blocks' owners, text or plugins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vcore.errors import EngineError
from vcore.interfaces.attention import AttentionBackend
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.step import SchedulerOutput
from vcore.interfaces.weights import WeightLoader
from vcore.kv_cache.layout import CacheLayout
from vcore.ops.compile_ahead import AheadCompiler
from vcore.runner.batch_state import BatchState
from vcore.runner.current_device import on_device
from vcore.runner.decode_path import DecodePath
from vcore.runner.forward_pass import ForwardPass
from vcore.runner.input_builder import ForwardBatch, InputBuilder
from vcore.runner.launched_step import HostCopies, LaunchedStep, PromptPart
from vcore.runner.model_loading import load_model
from vcore.runner.pooling import PoolSpan, PromptPooling
from vcore.runner.processors import ProcessorFactory
from vcore.runner.profiler import StepProfiler
from vcore.runner.prompt_logprobs import PromptLogprobs, PromptSpan
from vcore.runner.sampler import Sampled, Sampler
from vcore.runner.sampling_plan import SamplingPlan, plan_sampling
from vcore.runner.sampling_state import Need, SamplingState
from vcore.runner.settings import RunnerSettings
from vcore.runner.staging import make_staging

__all__ = ["LaunchedForward", "ModelRunner"]


@dataclass(slots=True)
class LaunchedForward:
    """A forward pass that was launched."""

    step_id: int
    batch: ForwardBatch
    hidden_states: torch.Tensor
    """[num_tokens, hidden_size]."""
    prompt_spans: list[PromptSpan]
    pool_spans: list[PoolSpan]


class ModelRunner:
    """The runner of one rank (`vcore.interfaces.Runner`). Not thread safe."""

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        build_model: Callable[[BuildContext], Model],
        loader: WeightLoader,
        attention: AttentionBackend,
        make_processor: ProcessorFactory,
        rank: int = 0,
        world_size: int = 1,
        keep_tokens_on_device: bool = False,
    ) -> None:
        """Join the parts; nothing is loaded.

        Args:
            settings: resolved settings.
            build_model: builds the model, uninitialised.
            loader: supplies its configuration and weights.
            attention: the backend that the model's layers are built with.
            make_processor: makes a logits processor by its name, once an engine.
            rank: of `world_size` ranks that share the model's layers.
            world_size: how many ranks there are.
            keep_tokens_on_device: whether sampled tokens stay on the device until their step is collected, as
                they always do on an accelerator.
        """
        self._settings = settings
        self._build_model = build_model
        self._loader = loader
        self._attention = attention
        self._rank, self._world_size = rank, world_size
        device = settings.device
        self._compiler = AheadCompiler(device)
        self._keep_on_device = device.type != "cpu" or keep_tokens_on_device
        self._state = BatchState(
            max_num_seqs=settings.max_num_seqs,
            max_model_len=settings.max_model_len,
            block_size=settings.block_size,
        )
        self._sampling = SamplingState(
            self._state,
            max_num_seqs=settings.max_num_seqs,
            vocab_size=settings.vocab_size,
            device=device,
            make_processor=make_processor,
        )
        self._prompt_logprobs = PromptLogprobs(self._state, settings.vocab_size)
        self._pooling = PromptPooling(settings.hidden_size)
        self._builder = InputBuilder(
            self._state, make_staging(device), settings.max_num_batched_tokens, send_rows=self._keep_on_device
        )
        self._sampling_staging = make_staging(device)
        self._sampler = Sampler(settings.vocab_size, device, self._sampling.penalties)
        self._last_token_ids = torch.zeros(settings.max_num_seqs, dtype=torch.int64, device=device)
        """int64 [max_num_seqs] on the device: what each row sampled last; kept only if tokens stay there."""
        self._pending: deque[LaunchedStep] = deque()
        """Launched steps whose tokens the batch state may not know yet."""
        self._profiler = StepProfiler(rank, device)
        self._forward: ForwardPass | None = None
        """The model, once it is loaded."""
        self._decode_path: DecodePath | None = None

    def load(self) -> None:
        """Build the model and load its weights.

        Raises:
            ModelError: the files are missing, or do not fit the architecture.
        """
        settings = self._settings
        if settings.num_threads is not None and settings.num_threads != torch.get_num_threads():
            torch.set_num_threads(settings.num_threads)
        context = BuildContext(
            config=self._loader.config(),
            dtype=settings.dtype,
            device=settings.device,
            attention=self._attention,
            max_model_len=settings.max_model_len,
            tp_rank=self._rank,
            tp_size=self._world_size,
        )
        with on_device(self._settings.device):
            model = load_model(context, self._build_model, self._loader)
            forward = ForwardPass(model, self._attention, settings, self._state, self._last_token_ids, self._compiler)
        self._state.set_groups(forward.layout.windows)
        self._forward = forward

    def cache_bytes_available(self) -> int:
        """Bytes that this rank can give to the KV cache; on CUDA, found by runs of the largest steps."""
        forward, self._decode_path = self._loaded(), None
        with on_device(self._settings.device):
            return forward.cache_bytes_available()

    def cache_layout(self) -> CacheLayout:
        """How the model's layers share blocks."""
        return self._loaded().layout

    def initialize_cache(self, num_blocks: int) -> None:
        """Allocate the cache of `num_blocks` blocks, the null block among them, and capture what is to be by then.

        Raises:
            CapacityError: memory does not hold it; the message has the numbers.
        """
        forward = self._loaded()
        with on_device(self._settings.device):
            forward.initialize_cache(num_blocks)
            if self._settings.capture_at_start:
                forward.record_all()
        self._decode_path = None
        if forward.graphs is not None:
            self._decode_path = DecodePath(forward.graphs, self._state, self._sampling, self._settings.device)

    def launch(self, output: SchedulerOutput) -> LaunchedStep:
        """Apply the difference and launch the step. The state keeps what was applied even if the step fails."""
        with on_device(self._settings.device), torch.inference_mode():
            self._apply(output)
            if not output.rows.size:
                return self._empty_step(output.step_id)
            while self._pending and self._pending[0].settled:
                self._pending.popleft()
            num_shared_blocks = self._loaded().shared_blocks(output)
            if self._decode_path is not None and not len(self._prompt_logprobs):
                step = self._decode_path.launch(output, num_shared_blocks)
                if step is not None:
                    self._pending.append(step)
                    return step
            last_token_ids = self._last_token_ids if self._pending else None
            batch = self._builder.build(output, last_token_ids, num_shared_blocks)
            return self.launch_sampling(self.launch_forward(output, batch, num_shared_blocks))

    def launch_forward(
        self, output: SchedulerOutput, batch: ForwardBatch, num_shared_blocks: int = 0
    ) -> LaunchedForward:
        """Launch the model on `batch`, built for as many shared blocks; its tokens count as computed from here on."""
        hidden_states = self._loaded().hidden_states(output, batch, num_shared_blocks)
        where = (batch.rows, batch.starts, batch.metadata.query_start_loc_cpu)
        prompt_spans = self._prompt_logprobs.spans(*where) if len(self._prompt_logprobs) else []
        pool_spans = self._pooling.spans(*where) if len(self._pooling) else []
        self._state.advance(batch.rows, output.num_tokens)
        return LaunchedForward(output.step_id, batch, hidden_states, prompt_spans, pool_spans)

    def launch_sampling(self, forward: LaunchedForward) -> LaunchedStep:
        """Launch the LM head and the sampling of the rows that reached their last token, and the copies to the host.

        Prompts that pool get their vectors here as well.
        """
        batch, rows = forward.batch, forward.batch.sampled_rows
        pooled = self._pooling.pool(forward.pool_spans, forward.hidden_states) if forward.pool_spans else None
        if not rows.size and not forward.prompt_spans and pooled is None:
            return self._empty_step(forward.step_id)
        copies = HostCopies(self._settings.device)
        if pooled is not None:
            pooled.vectors = copies.take(pooled.vectors)
        prompt_parts = [self._prompt_part(span, forward.hidden_states, copies) for span in forward.prompt_spans]
        sampled, plan = _NOTHING, None
        if rows.size:
            plan = self._plan(batch)
            hidden_states = forward.hidden_states
            if batch.logits_indices is not None:
                hidden_states = hidden_states.index_select(0, batch.logits_indices)
            sampled = self._sampler.sample(self._loaded().compute_logits(hidden_states), plan)
        step = LaunchedStep(
            step_id=forward.step_id,
            state=self._state,
            rows=rows,
            sampled=sampled,
            copies=copies,
            logprob_plan=None if plan is None else plan.logprobs,
            prompt_parts=prompt_parts,
            pooled=pooled,
        )
        if rows.size:
            self._append(step, batch.sampled_rows_on_device)
        copies.close()
        return step

    def start_profile(self, folder: Path) -> None:
        """Start torch's profiler; the trace goes into `folder`."""
        self._profiler.start(folder)

    def stop_profile(self) -> None:
        """Stop it and write the trace."""
        if self._settings.device.type == "cuda":
            torch.cuda.synchronize(self._settings.device)
        self._profiler.stop()

    def close(self) -> None:
        """Write a profile that is running, and free the model and the cache. Harmless when called twice."""
        if self._profiler.running:
            self.stop_profile()
        self._pending.clear()
        self._compiler.close()
        if self._forward is not None:
            self._forward.drop_cache()
        self._forward = self._decode_path = None

    def _apply(self, output: SchedulerOutput) -> None:
        self._state.apply(output)
        for row in output.freed_rows:
            self._sampling.remove(row)
            self._prompt_logprobs.remove(row)
            self._pooling.remove(row)
        for new in output.new_rows:
            self._sampling.add(new)
            self._prompt_logprobs.add(new)
            self._pooling.add(new)

    def _plan(self, batch: ForwardBatch) -> SamplingPlan | None:
        """What the step's rows need, on the device."""
        sampling = self._sampling
        if not sampling.num_flagged:
            return None
        if self._pending and self._needs_host_tokens(batch):
            for step in self._pending:
                step.resolve()
        staging = self._sampling_staging
        staging.begin()
        plan = plan_sampling(sampling, self._state, batch.sampled_rows, staging.put)
        staging.flush()
        return plan

    def _needs_host_tokens(self, batch: ForwardBatch) -> bool:
        flags = self._sampling.flags[batch.sampled_rows]
        needs = int(np.bitwise_or.reduce(flags))
        if needs & Need.BAD_WORDS:
            return True
        if not needs & Need.PROCESSOR:
            return False
        rows = batch.sampled_rows[(flags & Need.PROCESSOR) != 0].tolist()
        return self._sampling.processors.needs_host_tokens(rows)

    def _prompt_part(self, span: PromptSpan, hidden_states: torch.Tensor, copies: HostCopies) -> PromptPart:
        parts = self._prompt_logprobs.compute(span, hidden_states, self._loaded().compute_logits)
        return PromptPart(span.row, span.num_top, [copies.take_logprobs(part) for part in parts])

    def _append(self, step: LaunchedStep, rows_on_device: torch.Tensor | None) -> None:
        """Add the sampled tokens to the batch state: now, or when the step is resolved."""
        rows, sampled = step.rows, step.sampled
        if rows_on_device is None:
            self._state.append_tokens(rows, sampled.token_ids.numpy())
            return
        step.deferred = (self._state.epoch[rows], self._state.num_tokens[rows])
        self._state.append_unknown(rows)
        self._last_token_ids.index_copy_(0, rows_on_device, sampled.token_ids)
        sampled.token_ids = step.copies.take(sampled.token_ids)
        sampled.scores = step.copies.take(sampled.scores)
        if sampled.logprobs is not None:
            sampled.logprobs = step.copies.take_logprobs(sampled.logprobs)
        self._pending.append(step)

    def _empty_step(self, step_id: int) -> LaunchedStep:
        rows = np.empty(0, dtype=np.int64)
        copies = HostCopies(self._settings.device)
        return LaunchedStep(step_id=step_id, state=self._state, rows=rows, sampled=_NOTHING, copies=copies)

    def _loaded(self) -> ForwardPass:
        if self._forward is None:
            raise EngineError("the runner has no model; call load first")
        return self._forward


_NOTHING = Sampled(torch.empty(0, dtype=torch.int64), torch.empty(0))
"""The outcome of a step in which no row samples."""
