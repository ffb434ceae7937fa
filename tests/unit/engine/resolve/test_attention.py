"""Attention backends are held against what they list, and refused for what they do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from vcore.engine.resolve import Resolution, check_backend
from vcore.engine.resolve.attention import resolve_block_size
from vcore.errors import ConfigError, PluginBrokenError, PluginConflictError
from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LayerSpec,
)
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry, EntryStatus
from vcore.plugins.specs import AttentionBackendSpec, AttentionCapabilities

Make = Callable[..., AttentionCapabilities]
Resolve = Callable[..., Resolution]


def never(*, options: object, context: object) -> None: ...


@pytest.mark.parametrize(
    ("listed", "needed", "reason"),
    [
        ({"devices": ("cuda",)}, {}, "runs on cuda, not on cpu"),
        ({"dtypes": ("bfloat16",)}, {}, "computes in bfloat16, not in float32"),
        ({"head_dims": (64, 128)}, {"head_dims": (64, 80)}, "serves head dimensions 64, 128, not 80"),
        ({"head_dims": ()}, {"head_dims": (64,)}, "serves head dimensions of latent attention alone, not 64"),
        ({"block_sizes": (64,)}, {"block_size": 96}, "needs blocks of a multiple of 64 tokens, not of 96"),
        ({}, {"features": {"sinks", "mla"}}, "does not list mla, sinks"),
        ({"fuses": frozenset({"rope", "kv_write"})}, {}, "fuses rope, which layers of this version compute themselves"),
        (
            {"min_compute_capability": (9, 0)},
            {"compute_capability": (8, 6)},
            "needs compute capability 9.0, found 8.6",
        ),
    ],
)
def test_what_is_not_listed_is_refused(
    make_capabilities: Make, listed: dict[str, Any], needed: dict[str, Any], reason: str
) -> None:
    needs: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32} | needed
    assert check_backend(make_capabilities(**listed), **needs) == [reason]
    assert check_backend(make_capabilities(features=frozenset({"sinks", "mla"})), **needs) == []


def test_all_reasons_are_told_and_the_unknown_is_not_checked(make_capabilities: Make) -> None:
    narrow = make_capabilities(devices=("cuda",), dtypes=("float16",), head_dims=(64,), block_sizes=(32,))
    assert len(check_backend(narrow, device="cpu", dtype="float32", head_dims=(8,), block_size=16)) == 4
    assert check_backend(narrow, device=None, dtype=None) == []
    assert check_backend(narrow, device="cuda:1", dtype=torch.float16, head_dims=(64,), block_size=96) == []


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [(None, 16), ((16,), 16), ((8,), 16), ((4, 256), 16), ((32, 64), 32), ((256,), 256), ((12,), 24), ((12, 20), 20)],
)
def test_the_block_size_is_16_or_the_least_above_that_fits(
    make_capabilities: Make, sizes: tuple[int, ...] | None, chosen: int
) -> None:
    block_size, decision = resolve_block_size("auto", make_capabilities(block_sizes=sizes))
    assert block_size == chosen
    assert decision is not None
    assert check_backend(make_capabilities(block_sizes=sizes), device=None, dtype=None, block_size=chosen) == []


def backend(name: str, rank: int, listed: AttentionCapabilities) -> AttentionBackendSpec:
    return AttentionBackendSpec(name=name, load=never, api="1.0", rank=rank, capabilities=listed)


def test_auto_takes_the_best_that_can_and_tells_why_not_the_others(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Make,
    resolve_model: Resolve,
    decided: Callable[..., dict[str, Any]],
) -> None:
    catalog = make_catalog(
        make_entry(backend("cuda_only", 90, make_capabilities(devices=("cuda",)))),
        make_entry(backend("wide", 50, make_capabilities(block_sizes=(64,)))),
        make_entry(backend("gone", 99, make_capabilities()), status=EntryStatus.MISSING_REQUIREMENT),
        make_entry(backend("foreign", 99, make_capabilities()), distribution="acme"),
    )
    resolution = resolve_model(using=catalog)
    decision = decided(resolution)["attention.backend"]
    assert (decision.value, resolution.block_size) == ("wide", 64)
    reasons = {address: " ".join(told) for address, told in decision.rejected}
    assert reasons["attention_backend/cuda_only@vcore-engine"] == "runs on cuda, not on cpu"
    assert reasons["attention_backend/plain@vcore-engine"] == "it can, but its rank is lower"
    assert "broken for a test" in reasons["attention_backend/gone@vcore-engine"]
    assert "plugins.prefer" in reasons["attention_backend/foreign@acme"]
    assert resolve_model({"cache.block_size": 16}, using=catalog).attention.name == "plain"


def test_a_preferred_distribution_is_considered(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Make,
    resolve_model: Resolve,
) -> None:
    entry = make_entry(backend("foreign", 99, make_capabilities()), distribution="acme")
    assert resolve_model(using=make_catalog(entry, prefer=("acme",))).attention.name == "foreign"


def test_head_dims_of_the_model_count(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Make,
    resolve_model: Resolve,
) -> None:
    entry = make_entry(backend("narrow", 99, make_capabilities(head_dims=(64,))))
    catalog = make_catalog(entry)
    assert resolve_model(using=catalog).attention.name == "plain"
    assert resolve_model(using=catalog, head_dim=64).attention.name == "narrow"
    with pytest.raises(ConfigError, match=r"'narrow' of vcore-engine 1\.0 cannot serve here: serves head dim"):
        resolve_model({"attention.backend": "narrow"}, using=catalog)


def test_none_that_can_is_told_with_every_reason(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Make,
    resolve_model: Resolve,
) -> None:
    catalog = make_catalog(
        make_entry(backend("one", 1, make_capabilities(devices=("cuda",)))),
        make_entry(backend("two", 1, make_capabilities(dtypes=("float16",)))),
        without=("plain",),
    )
    with pytest.raises(ConfigError, match="no installed backend can serve here") as caught:
        resolve_model(using=catalog)
    assert "one@vcore-engine: runs on cuda" in str(caught.value)
    assert "two@vcore-engine: computes in float16" in str(caught.value)
    with pytest.raises(ConfigError, match="none is installed"):
        resolve_model(using=make_catalog(without=("plain",)))


def test_a_tie_is_an_error(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Make,
    resolve_model: Resolve,
) -> None:
    catalog = make_catalog(make_entry(backend("twin", 0, make_capabilities())))
    with pytest.raises(PluginConflictError, match=r"attention\.backend"):
        resolve_model(using=catalog)


def test_features_of_the_model_count(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Make,
    resolve_model: Resolve,
    decided: Callable[..., dict[str, Any]],
) -> None:
    able = make_capabilities(features=frozenset({"sliding_window", "soft_cap", "mla"}))
    catalog = make_catalog(make_entry(backend("able", -1, able)))
    assert resolve_model(using=catalog).attention.name == "plain"
    resolution = resolve_model(using=catalog, windows=[None, 8, 8], soft_cap=50.0)
    assert resolution.attention.name == "able"
    rejected = dict(decided(resolution)["attention.backend"].rejected)
    assert rejected["attention_backend/plain@vcore-engine"] == ("does not list sliding_window, soft_cap",)
    latent = resolve_model(using=catalog, architectures=["LatentForCausalLM"])
    assert latent.attention.name == "able"
    with pytest.raises(ConfigError, match=r"'plain' of vcore-engine 1\.0 cannot serve here: does not list mla"):
        resolve_model({"attention.backend": "plain"}, using=catalog, architectures=["LatentForCausalLM"])


def test_of_a_model_that_cannot_be_described_nothing_is_demanded(resolve_model: Resolve) -> None:
    resolution = resolve_model(architectures=["StubbornForCausalLM"], windows=[8])
    assert resolution.attention.name == "plain"
    assert resolution.outline is None
    assert resolution.kv_bytes_per_token is None


class Picky(AttentionBackend):
    """Has something against every model, in its own words."""

    asked: list[tuple[AttentionBackendContext, tuple[LayerSpec, ...]]] = []

    def __init__(self, *, options: object, context: AttentionBackendContext) -> None:
        raise AssertionError("resolving creates no backend")

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        raise NotImplementedError

    def plan(self, metadata: AttentionMetadata) -> object:
        raise NotImplementedError

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        cls.asked.append((context, tuple(layers)))
        return ["it is Monday"]


class Confused(Picky):
    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: Sequence[LayerSpec]) -> Sequence[str]:
        raise KeyError("head_dim")


@pytest.fixture
def make_picky(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Catalog]:
    """A catalog with a backend of the highest rank that is asked for its own reasons."""
    monkeypatch.setattr(Picky, "asked", [])

    def make(load: object = Picky, **listed: Any) -> Catalog:
        spec = replace(backend("picky", 99, make_capabilities(**listed)), load=load)  # type: ignore[arg-type]
        return make_catalog(make_entry(spec))

    return make


def test_a_reason_of_the_backend_itself_rejects_it_before_anything_is_loaded(
    make_picky: Callable[..., Catalog], resolve_model: Resolve, decided: Callable[..., dict[str, Any]]
) -> None:
    resolution = resolve_model({"scheduler.max_num_seqs": 5}, using=make_picky(block_sizes=(32,)))
    assert resolution.attention.name == "plain"
    rejected = dict(decided(resolution)["attention.backend"].rejected)
    assert rejected["attention_backend/picky@vcore-engine"] == ("it is Monday",)
    [(context, layers)] = Picky.asked
    assert (context.block_size, context.max_num_seqs, context.max_model_len) == (32, 5, 512)
    assert [layer.head_dim for layer in layers] == [16, 16, 16]
    with pytest.raises(ConfigError, match="cannot serve here: it is Monday"):
        resolve_model({"attention.backend": "picky"}, using=make_picky())


def test_a_backend_whose_capabilities_do_not_suffice_is_not_imported(
    make_picky: Callable[..., Catalog], resolve_model: Resolve
) -> None:
    assert resolve_model(using=make_picky("acme_absent:Picky", devices=("cuda",))).attention.name == "plain"
    with pytest.raises(PluginBrokenError, match="acme_absent"):
        resolve_model(using=make_picky("acme_absent:Picky"))


def test_a_backend_that_raises_instead_of_a_reason_is_named(
    make_picky: Callable[..., Catalog], resolve_model: Resolve
) -> None:
    with pytest.raises(PluginBrokenError, match=r"'picky' of vcore.*unsupported_reasons raised KeyError: 'head_dim'"):
        resolve_model(using=make_picky(Confused))
