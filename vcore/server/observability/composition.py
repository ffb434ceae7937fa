"""What the engine was composed from, as labels of metrics and words on the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcore.version import __version__

if TYPE_CHECKING:
    from vcore.config import ServerSettings
    from vcore.engine.async_llm import AsyncLLM
    from vcore.plugins.resolved import ResolvedPlugin

__all__ = ["Composition"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What serves, in words; it stays as it is for as long as a server runs."""

    model_name: str
    """The first name that the model is served under."""
    model_path: str
    scheduling_policy: str
    eviction_policy: str
    attention_backend: str
    executor: str
    device: str
    dtype: str
    block_size: str
    num_blocks: str
    prefix_caching: bool
    max_model_len: int
    vocab_size: int
    plugins: tuple[ResolvedPlugin, ...]
    version: str = __version__

    @classmethod
    def of(cls, engine: AsyncLLM, settings: ServerSettings) -> Composition:
        """What `engine`, which has been started, runs with."""
        config = engine.config
        return cls(
            model_name=(*settings.model_names, config.model.path)[0],
            model_path=config.model.path,
            scheduling_policy=config.scheduler.policy.name,
            eviction_policy=config.cache.eviction.name,
            attention_backend=config.attention.backend.name,
            executor=config.executor.name,
            device=config.runtime.device,
            dtype=config.model.dtype,
            block_size=str(config.cache.block_size),
            num_blocks=str(config.cache.num_blocks),
            prefix_caching=config.cache.prefix_caching,
            max_model_len=engine.max_model_len,
            vocab_size=engine.vocab_size,
            plugins=engine.plugins.plugins,
        )

    @property
    def common_labels(self) -> tuple[str, ...]:
        """The values of `vcore.server.observability.definitions.COMMON_LABELS`."""
        return (self.model_name, self.scheduling_policy, self.eviction_policy, self.attention_backend)
