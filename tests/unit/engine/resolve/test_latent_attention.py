"""A backend's own reasons against layers of latent attention count while a backend is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vcore.engine.resolve import Resolution
from vcore.errors import PluginBrokenError
from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LatentSpec,
    LayerSpec,
)
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import AttentionBackendSpec, AttentionCapabilities


class Picky(AttentionBackend):
    """Has something against latent attention alone."""

    asked: list[tuple[LatentSpec, ...]] = []

    def __init__(self, *, options: object, context: AttentionBackendContext) -> None:
        raise AssertionError("resolving creates no backend")

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        raise NotImplementedError

    def plan(self, metadata: AttentionMetadata) -> object:
        raise NotImplementedError

    @classmethod
    def unsupported_latent_reasons(
        cls, context: AttentionBackendContext, layers: Sequence[LatentSpec]
    ) -> Sequence[str]:
        cls.asked.append(tuple(layers))
        return ["its latents are too small"]


class Confused(Picky):
    @classmethod
    def unsupported_latent_reasons(
        cls, context: AttentionBackendContext, layers: Sequence[LatentSpec]
    ) -> Sequence[str]:
        raise KeyError("kv_lora_rank")


@pytest.fixture
def make(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Callable[..., AttentionCapabilities],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Catalog]:
    """A catalog with backends of these classes, each of a higher rank than the next."""
    monkeypatch.setattr(Picky, "asked", [])

    def build(**loads: type[AttentionBackend]) -> Catalog:
        capabilities = make_capabilities(features=frozenset({"mla"}))
        entries = [
            make_entry(
                AttentionBackendSpec(name=name, load=load, api="1.0", rank=99 - index, capabilities=capabilities)
            )
            for index, (name, load) in enumerate(loads.items())
        ]
        return make_catalog(*entries)

    return build


class Able(Picky):
    @classmethod
    def unsupported_latent_reasons(
        cls, context: AttentionBackendContext, layers: Sequence[LatentSpec]
    ) -> Sequence[str]:
        return ()


def test_its_reasons_reject_it(
    make: Callable[..., Catalog],
    resolve_model: Callable[..., Resolution],
    decided: Callable[..., dict[str, Any]],
) -> None:
    resolution = resolve_model(using=make(picky=Picky, able=Able), architectures=["LatentForCausalLM"])
    assert resolution.attention.name == "able"
    rejected = dict(decided(resolution)["attention.backend"].rejected)
    assert rejected["attention_backend/picky@vcore-engine"] == ("its latents are too small",)
    [layers] = Picky.asked
    assert layers
    assert all(isinstance(layer, LatentSpec) for layer in layers)


def test_it_is_not_asked_where_there_is_no_latent_attention(
    make: Callable[..., Catalog], resolve_model: Callable[..., Resolution]
) -> None:
    assert resolve_model(using=make(picky=Picky)).attention.name == "picky"
    assert not Picky.asked


def test_one_that_raises_is_named(make: Callable[..., Catalog], resolve_model: Callable[..., Resolution]) -> None:
    with pytest.raises(
        PluginBrokenError, match=r"'confused' of vcore.*unsupported_latent_reasons raised KeyError: 'kv_lora_rank'"
    ):
        resolve_model(using=make(confused=Confused), architectures=["LatentForCausalLM"])
