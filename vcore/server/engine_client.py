"""`EngineClient`: what the server needs of an engine. `AsyncLLM` is one; tests have another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vcore.config import EngineConfig
from vcore.engine.conversations import Conversation
from vcore.engine.prompts import Prompt, TokensPrompt
from vcore.outputs import EmbeddingOutput, RequestOutput
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams

if TYPE_CHECKING:
    from vcore.plugins.catalog import Catalog
    from vcore.tokenizer.tokenizer import Tokenizer

__all__ = ["EngineClient", "OutputMode", "StatusView"]

OutputMode = Literal["cumulative", "delta", "final"]


class StatusView(Protocol):
    """The state of an engine."""

    @property
    def state(self) -> str:
        """``starting``, ``ready``, ``restarting``, ``dead`` or ``closed``."""

    @property
    def reason(self) -> str | None:
        """Why it is not ready."""

    @property
    def restarts(self) -> int:
        """How often its process was restarted."""

    @property
    def faults(self) -> Sequence[str]:
        """Policies that failed."""

    @property
    def failed_steps(self) -> int:
        """Steps that raised."""


class EngineClient(Protocol):
    """An engine that answers asynchronously."""

    @property
    def config(self) -> EngineConfig:
        """The configuration, with every ``auto`` resolved."""

    @property
    def catalog(self) -> Catalog:
        """The plugins that were found."""

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and output together."""

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        request_id: str | None = None,
        mode: OutputMode = "cumulative",
    ) -> AsyncGenerator[RequestOutput, None]:
        """Generate; closing the generator aborts. In mode ``delta`` an output holds only what is new."""

    async def embed(
        self, prompt: Prompt, params: PoolingParams | None = None, *, request_id: str | None = None
    ) -> EmbeddingOutput:
        """Embed; cancelling aborts."""

    def health(self) -> StatusView:
        """The engine's state."""

    def num_unfinished(self) -> int:
        """How many requests are open."""

    def render_chat(self, conversation: Conversation, /, **template_options: Any) -> TokensPrompt:
        """The prompt that the chat template makes of a conversation."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids."""

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer; a `RequestError` if there is none."""

    async def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix."""

    async def start_profile(self, folder: str | Path | None = None) -> Path:
        """Start the profiler; where the traces will be."""

    async def stop_profile(self) -> Path:
        """Stop it; where the traces are."""
