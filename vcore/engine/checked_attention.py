"""`CheckedAttention`: a backend that builds only layers that it can compute, by its capabilities and its own word."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vcore.engine.resolve import check_backend
from vcore.errors import ConfigError
from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LatentAttentionLayer,
    LatentSpec,
    LayerSpec,
)
from vcore.plugins.specs import AttentionCapabilities

__all__ = ["CheckedAttention"]


class CheckedAttention(AttentionBackend):
    """Checks each layer when it is built; costs nothing in a step."""

    def __init__(
        self,
        backend: AttentionBackend,
        capabilities: AttentionCapabilities,
        context: AttentionBackendContext,
        *,
        address: str,
    ) -> None:
        """Stand before `backend`.

        Args:
            backend: the plugin.
            capabilities: what its spec lists.
            context: what it was built with.
            address: ``kind/name@distribution``, for errors.
        """
        self._backend = backend
        self._capabilities = capabilities
        self._context = context
        self._address = address

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        """The backend's layer.

        Raises:
            ConfigError: the layer needs what the backend does not list, or says that it cannot do.
        """
        context = self._context
        reasons = self._reasons({spec.head_dim, spec.v_head_dim or spec.head_dim}, spec.required_features())
        self._refuse([*reasons, *type(self._backend).unsupported_reasons(context, [spec])])
        return self._backend.build_layer(spec)

    def build_latent_layer(self, spec: LatentSpec) -> LatentAttentionLayer:
        """The backend's layer of latent attention.

        Raises:
            ConfigError: the backend does not list ``mla``, or says that it cannot serve the layer.
        """
        context = self._context
        reasons = self._reasons((), {"mla"})
        self._refuse([*reasons, *type(self._backend).unsupported_latent_reasons(context, [spec])])
        return self._backend.build_latent_layer(spec)

    def _reasons(self, head_dims: Collection[int], features: Collection[str]) -> list[str]:
        context = self._context
        return check_backend(
            self._capabilities,
            device=context.device,
            dtype=context.dtype,
            head_dims=head_dims,
            block_size=context.block_size,
            features=features,
        )

    def _refuse(self, reasons: Sequence[str]) -> None:
        if reasons:
            raise ConfigError(
                f"attention backend {self._address} cannot compute a layer of this model: {'; '.join(reasons)}. "
                "Choose another attention.backend; `vcore plugins list` names those there are."
            )

    def plan(self, metadata: AttentionMetadata) -> object:
        """The backend's plan."""
        return self._backend.plan(metadata)

    def uses_shared_prefix(self, num_decodes: int, num_shared_blocks: int) -> bool:
        """The backend's answer."""
        return self._backend.uses_shared_prefix(num_decodes, num_shared_blocks)
