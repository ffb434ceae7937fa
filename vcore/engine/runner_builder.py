"""`RunnerBuilder`: makes the runner of a rank, with its model and its attention backend."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from vcore.config import EngineConfig
from vcore.engine.checked_attention import CheckedAttention
from vcore.engine.processor_pool import ProcessorPool
from vcore.engine.resolve import Resolution
from vcore.errors import ConfigError
from vcore.interfaces.attention import AttentionBackend, AttentionBackendContext
from vcore.interfaces.executor import Runner
from vcore.interfaces.model import BuildContext, Model
from vcore.layers.moe import FusedMoE
from vcore.plugins import AttentionBackendSpec, AttentionCapabilities, Catalog
from vcore.runner.cuda_graphs import graph_sizes
from vcore.runner.current_device import on_device
from vcore.runner.model_runner import ModelRunner
from vcore.runner.settings import RunnerSettings

__all__ = ["RunnerBuilder"]


class RunnerBuilder:
    """What executors get as `ExecutorContext.runner_factory`. The plugins of each rank are made for it alone."""

    def __init__(self, resolution: Resolution, catalog: Catalog, processors: ProcessorPool) -> None:
        """Args:
        resolution: what is to be built.
        catalog: where the plugins are.
        processors: logits processors of rank 0; other ranks get such as are made like them.
        """
        self._resolution = resolution
        self._catalog = catalog
        self._processors = processors

    def __call__(self, rank: int, world_size: int) -> Runner:
        """The runner of one rank, on its device; the model is not loaded yet.

        Raises:
            PluginError: the attention backend cannot be made.
        """
        with on_device(self._resolution.device):
            return self._build(rank, world_size)

    def _build(self, rank: int, world_size: int) -> Runner:
        return ModelRunner(
            self._settings(),
            build_model=self._build_model,
            loader=self._resolution.loader,
            attention=self._build_attention(),
            make_processor=self._processors.get if rank == 0 else self._processors.another().get,
            rank=rank,
            world_size=world_size,
        )

    @property
    def _capabilities(self) -> AttentionCapabilities:
        return cast(AttentionBackendSpec, self._resolution.attention.spec).capabilities

    def _settings(self) -> RunnerSettings:
        resolution, config = self._resolution, self._resolution.config
        return RunnerSettings(
            device=resolution.device,
            dtype=resolution.dtype,
            block_size=resolution.block_size,
            max_num_seqs=resolution.max_num_seqs,
            max_num_batched_tokens=resolution.max_num_batched_tokens,
            max_model_len=resolution.max_model_len,
            memory_fraction=config.cache.memory_fraction,
            vocab_size=resolution.vocab_size,
            hidden_size=resolution.pooling.size or None,
            num_threads=cast(int, config.runtime.num_threads),
            graph_sizes=_graph_sizes(resolution, self._capabilities),
            max_segment_tokens=_max_segment_tokens(resolution),
            capture_at_start=config.runtime.graph_capture == "at_start",
        )

    def _build_attention(self) -> CheckedAttention:
        resolution = self._resolution
        context = AttentionBackendContext(
            device=resolution.device,
            dtype=resolution.dtype,
            block_size=resolution.block_size,
            max_num_seqs=resolution.max_num_seqs,
            max_num_batched_tokens=resolution.max_num_batched_tokens,
            max_model_len=resolution.max_model_len,
        )
        options = resolution.config.attention.backend.options
        backend = cast(AttentionBackend, self._catalog.create(resolution.attention, options=options, context=context))
        return CheckedAttention(backend, self._capabilities, context, address=resolution.attention.address)

    def _build_model(self, context: BuildContext) -> Model:
        resolution, config = self._resolution, self._resolution.config
        context = replace(
            context,
            attention_fuses=self._capabilities.fuses,
            moe_routing=config.model.moe_routing,
            fused_write=config.attention.fused_write,
        )
        options = config.model.plugin.options
        model = cast(Model, self._catalog.create(resolution.model, options=options, context=context))
        _check_moe_routing(model, config)
        return model


def _check_moe_routing(model: Model, config: EngineConfig) -> None:
    """Refuse another routing than the model's own if no layer of `model` takes it: a figure would be mislabelled."""
    if config.model.moe_routing != "model" and not any(isinstance(layer, FusedMoE) for layer in model.modules()):
        raise ConfigError(
            f"model.moe_routing is {config.model.moe_routing!r}, but this model has no routed experts "
            f"(no layer of it is a vcore.layers.FusedMoE). Leave the key out."
        )


def _graph_sizes(resolution: Resolution, capabilities: AttentionCapabilities) -> tuple[int, ...]:
    """What CUDA graphs are captured for; nothing where they cannot be or are not wanted."""
    if not _captures(resolution) or capabilities.graph_support == "none":
        return ()
    return graph_sizes(resolution.max_num_seqs)


def _max_segment_tokens(resolution: Resolution) -> int:
    """Most tokens of other steps that may be recorded in segments; with any backend: attention stays outside."""
    return resolution.max_num_batched_tokens if _captures(resolution) else 0


def _captures(resolution: Resolution) -> bool:
    runtime = resolution.config.runtime
    return resolution.device.type == "cuda" and not runtime.enforce_eager and runtime.tensor_parallel_size == 1
