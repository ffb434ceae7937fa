"""`ModelPooling`: whether an engine embeds, and how; what requests are held against, and what their vectors become.

It knows neither tensors nor checkpoints: `vcore.engine.resolve.pooling` reads those, `vcore.runner.pooling` pools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcore.errors import RequestError
from vcore.outputs import EmbeddingOutput, RequestOutput
from vcore.pooling_params import PoolingMode, PoolingParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NO_POOLING", "ModelPooling", "PooledOutput", "embedding_output", "finish_vector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPooling:
    """How the engine's model makes embeddings, if it does."""

    mode: PoolingMode | None = None
    """None: it makes none."""
    size: int = 0
    """Features of a hidden state."""
    normalize: bool = True
    """Of requests that do not say."""
    why_not: str = ""
    """Why `mode` is None."""

    def require(self) -> PoolingMode:
        """How it pools.

        Raises:
            RequestError: it does not; the message has the remedy.
        """
        if self.mode is None:
            raise RequestError(
                f"this engine makes no embeddings: {self.why_not}. If the model is meant for them, start the engine "
                "with model.pooling=last (the last token's hidden state) or model.pooling=mean (over all tokens)",
                param="model",
            )
        return self.mode

    def complete(self, params: PoolingParams) -> PoolingParams:
        """`params`, with nothing left to the model.

        Raises:
            RequestError: more dimensions are wanted than there are.
        """
        if params.dimensions is not None and params.dimensions > self.size:
            raise RequestError(
                f"dimensions={params.dimensions}, but the model's embeddings have {self.size}: ask for 1 to "
                f"{self.size}, or leave dimensions out",
                param="dimensions",
            )
        if params.normalize is not None:
            return params
        return params.model_copy(update={"normalize": self.normalize})


@dataclass(slots=True)
class PooledOutput(RequestOutput):
    """What the output processor gives for a request that embeds; its one sample has no tokens."""

    embedding: NDArray[np.float32] | None = None
    """float32 [dimensions]; None if the request failed or was aborted."""


NO_POOLING = ModelPooling(why_not="model.pooling is none")


def finish_vector(pooled: bytes, params: PoolingParams) -> NDArray[np.float32]:
    """The embedding that a request gets.

    Args:
        pooled: float32 [hidden_size] in this machine's order of bytes, finite.
        params: complete.

    Returns:
        float32 [dimensions], the caller's own. A vector of zeros stays one.
    """
    import numpy as np

    vector = np.frombuffer(pooled, dtype=np.float32)[: params.dimensions].copy()
    if params.normalize:
        # in float64: squares of float32 may overflow or vanish
        norm = np.linalg.norm(vector.astype(np.float64))
        if norm > 0.0:
            vector /= norm
    return vector


def embedding_output(output: RequestOutput) -> EmbeddingOutput:
    """What a finished request that embeds came to, as its caller sees it."""
    assert isinstance(output, PooledOutput)
    [sample] = output.outputs
    reason, error = sample.finish_reason or "", None
    if output.embedding is None:
        error = "the request was aborted" if reason == "abort" else str(sample.stop_reason)
    return EmbeddingOutput(
        request_id=output.request_id,
        prompt=output.prompt,
        prompt_token_ids=output.prompt_token_ids,
        embedding=output.embedding,
        num_cached_tokens=output.num_cached_tokens,
        finish_reason=reason,
        error=error,
        metrics=output.metrics,
    )
