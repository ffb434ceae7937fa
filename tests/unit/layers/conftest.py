"""Contexts for building single layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vcore.interfaces.attention import AttentionBackend, AttentionLayer, AttentionMetadata, LayerSpec
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext


class RecordingBackend(AttentionBackend):
    """Builds layers that note what they are given and answer with the queries."""

    def __init__(self) -> None:
        self.specs: list[LayerSpec] = []

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        self.specs.append(spec)
        return EchoLayer()

    def plan(self, metadata: AttentionMetadata) -> object:
        return None


class EchoLayer(AttentionLayer):
    """Attention that gives the queries back."""

    def forward(self, q, k, v, layer_cache, plan, out=None):
        return q.clone()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def build_context() -> Callable[..., BuildContext]:
    """Make a `BuildContext`; keywords replace its fields, `config` is a dictionary."""

    def build(config: dict[str, Any] | None = None, **fields: Any) -> BuildContext:
        defaults: dict[str, Any] = {
            "dtype": torch.float32,
            "device": torch.device("cpu"),
            "attention": RecordingBackend(),
            "max_model_len": 64,
        }
        return BuildContext(config=HFConfig(config or {}), **(defaults | fields))

    return build
