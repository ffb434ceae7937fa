"""Layers of latent attention are held against what a backend lists and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from vcore.engine.checked_attention import CheckedAttention
from vcore.errors import ConfigError
from vcore.interfaces import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LatentAttentionLayer,
    LatentSpec,
    LayerSpec,
)
from vcore.plugins import AttentionCapabilities

CONTEXT = AttentionBackendContext(
    device=torch.device("cpu"),
    dtype=torch.float32,
    block_size=16,
    max_num_seqs=1,
    max_num_batched_tokens=8,
    max_model_len=8,
)
LISTED = AttentionCapabilities(
    devices=("cpu",), dtypes=("float32",), head_dims=(64,), block_sizes=(16,), features=frozenset({"mla"})
)
SPEC = LatentSpec(num_heads=4, kv_lora_rank=32, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, scale=0.5)


class Forgetful(AttentionBackend):
    """Lists ``mla``, but has no layers of it."""

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        raise AssertionError("not asked for")

    def plan(self, metadata: AttentionMetadata) -> object:
        raise AssertionError("not asked for")


class Backend(Forgetful):
    """Builds any layer; says of itself that it dislikes seven heads."""

    def build_latent_layer(self, spec: LatentSpec) -> LatentAttentionLayer:
        return f"a layer of {spec.num_heads} heads"  # type: ignore[return-value]

    @classmethod
    def unsupported_latent_reasons(
        cls, context: AttentionBackendContext, layers: Sequence[LatentSpec]
    ) -> Sequence[str]:
        assert context is CONTEXT
        return ["seven heads are too many" for layer in layers if layer.num_heads == 7]


def checked(**changes: object) -> CheckedAttention:
    return CheckedAttention(Backend(), replace(LISTED, **changes), CONTEXT, address="attention_backend/b@d")


def test_what_is_listed_is_built_whatever_the_head_dims() -> None:
    assert checked().build_latent_layer(SPEC) == "a layer of 4 heads"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features": frozenset({"soft_cap"})}, "does not list mla"),
        ({"dtypes": ("float16",)}, "computes in float16, not in float32"),
        ({"devices": ("cuda",)}, "runs on cuda, not on cpu"),
        ({"block_sizes": (64,)}, "needs blocks of a multiple of 64 tokens, not of 16"),
    ],
)
def test_what_is_not_listed_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"attention_backend/b@d cannot compute a layer of this model: {reason}"):
        checked(**changes).build_latent_layer(SPEC)


def test_the_backend_may_have_reasons_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"cannot compute .*: seven heads are too many\. Choose another"):
        checked().build_latent_layer(replace(SPEC, num_heads=7))


def test_a_backend_that_lists_what_it_lacks_is_named() -> None:
    backend = CheckedAttention(Forgetful(), LISTED, CONTEXT, address="attention_backend/b@d")
    with pytest.raises(NotImplementedError, match="Forgetful lists 'mla' among its features, but builds no latent"):
        backend.build_latent_layer(SPEC)
