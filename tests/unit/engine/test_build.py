"""What composition alone decides: threads, blocks, checked layers."""

from __future__ import annotations

import pytest
import torch

from vcore.bench.overhead import null_engine
from vcore.engine.checked_attention import CheckedAttention
from vcore.errors import ConfigError
from vcore.interfaces import AttentionBackend, AttentionBackendContext, AttentionLayer, AttentionMetadata, LayerSpec
from vcore.plugins import AttentionCapabilities

CONTEXT = AttentionBackendContext(
    device=torch.device("cpu"),
    dtype=torch.float32,
    block_size=16,
    max_num_seqs=1,
    max_num_batched_tokens=8,
    max_model_len=8,
)
PLAIN = AttentionCapabilities(devices=("cpu",), dtypes=("float32",), head_dims=(64, 128), block_sizes=None)


class Backend(AttentionBackend):
    """Builds anything; says of itself that it dislikes seven heads."""

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        return "a layer"  # type: ignore[return-value]

    def plan(self, metadata: AttentionMetadata) -> object:
        return ("plan", metadata)

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: list[LayerSpec]) -> list[str]:  # type: ignore[override]
        return ["seven heads are too many" for layer in layers if layer.num_heads == 7]


def layer(**changes: object) -> LayerSpec:
    return LayerSpec(**{"num_heads": 4, "num_kv_heads": 1, "head_dim": 64, "scale": 0.125, **changes})


def checked() -> CheckedAttention:
    return CheckedAttention(Backend(), PLAIN, CONTEXT, address="attention_backend/b@d")


def test_layers_within_the_capabilities_are_built() -> None:
    assert checked().build_layer(layer()) == "a layer"
    assert checked().plan("metadata") == ("plan", "metadata")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sliding_window": 8}, "does not list sliding_window"),
        ({"soft_cap": 30.0}, "does not list soft_cap"),
        ({"sinks": True}, "does not list sinks"),
        ({"causal": False}, "does not list non_causal"),
        ({"head_dim": 80}, "serves head dimensions 64, 128, not 80"),
        ({"v_head_dim": 80}, "serves head dimensions 64, 128, not 80"),
        ({"num_heads": 7}, "seven heads are too many"),
    ],
)
def test_what_is_not_listed_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"attention_backend/b@d cannot compute .*{reason}"):
        checked().build_layer(layer(**changes))


def test_the_configured_number_of_threads_is_set() -> None:
    before = torch.get_num_threads()
    try:
        with null_engine(1, 0, 4, {"runtime.num_threads": before + 1}):
            assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_without_a_limit_there_are_blocks_for_every_request() -> None:
    with null_engine(3, 0, 4, {"cache.num_blocks": "auto", "cache.block_size": 16}) as engine:
        assert engine.config.cache.num_blocks == 3 * -(-engine.max_model_len // 16) + 1
