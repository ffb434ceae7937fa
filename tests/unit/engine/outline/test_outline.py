"""A model that is built without memory, and what that tells."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vcore.config import PluginOptions
from vcore.engine.outline import (
    HeaderCheckpoint,
    ModelOutline,
    RecordingAttention,
    WeightFit,
    build_on_meta,
    fit_weights,
    outline_model,
)
from vcore.errors import ConfigError, PluginBrokenError, PluginOptionsError, UnsupportedModelError, WeightsError
from vcore.interfaces.attention import AttentionMetadata, LatentSpec, LayerSpec
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.weights import CheckpointReader, TensorInfo
from vcore.kv_cache.spec import FullAttentionSpec, KVCacheSpec, LatentCacheSpec, SlidingWindowSpec
from vcore.layers import (
    Attention,
    ColumnParallelLinear,
    LMHead,
    RowParallelLinear,
    VocabParallelEmbedding,
    WeightMap,
    collect_kv_cache_specs,
    load_weights,
)
from vcore.plugins import Catalog, CatalogEntry, EntryStatus, ModelSpec, Origin
from vcore.plugins.entry import OriginKind

LAYER = LayerSpec(num_heads=8, num_kv_heads=2, head_dim=16, scale=0.25)
LATENT = LatentSpec(num_heads=4, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=96, scale=0.1)
CONFIG = HFConfig({"windows": [None, 6, None, 6]})


class Small(Model):
    """An embedding of 10 x 8 that is tied to the head, and layers of attention with a matrix before and after."""

    def __init__(self, *, options: object, context: BuildContext) -> None:
        super().__init__()
        self.seen = (context.device.type, torch.get_default_dtype(), context.max_model_len, context.tp_size)
        self.embed = VocabParallelEmbedding(context, 10, 8)
        self.lm_head = LMHead(context, 10, 8, tied=self.embed)
        self.up = ColumnParallelLinear(context, 8, 16)
        self.down = RowParallelLinear(context, 16, 8)
        self.layers = nn.ModuleList(
            Attention(
                context,
                index,
                LayerSpec(
                    num_heads=8 // context.tp_size,
                    num_kv_heads=2 // context.tp_size,
                    head_dim=16,
                    scale=0.25,
                    sliding_window=window,
                ),
            )
            for index, window in enumerate(context.config.windows)
        )

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        raise AssertionError

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        load_weights(self, checkpoint, WeightMap())

    def kv_cache_specs(self) -> list[KVCacheSpec]:
        return collect_kv_cache_specs(self)


class Depth(PluginOptions):
    depth: int = 1


@pytest.fixture
def outline() -> Callable[..., ModelOutline | None]:
    """Outlines what `load` builds."""

    def run(load: object = Small, **settings: Any) -> ModelOutline | None:
        catalog, entry = registered(load)
        options = settings.pop("options", {})
        return outline_model(catalog, entry, options, CONFIG, dtype=torch.bfloat16, max_model_len=100, **settings)

    return run


def registered(load: object) -> tuple[Catalog, CatalogEntry]:
    spec = ModelSpec(name="small", load=load, api="1.0", architectures=("Small",), options=Depth)  # type: ignore[arg-type]
    entry = CatalogEntry(
        kind=spec.kind,
        name=spec.name,
        spec=spec,
        distribution="acme",
        version="1.0",
        status=EntryStatus.OK,
        origin=Origin(how=OriginKind.OBJECT, name="small"),
    )
    return Catalog([entry]), entry


def meta_model() -> Model:
    catalog, entry = registered(Small)
    built = build_on_meta(catalog, entry, {}, CONFIG, dtype=torch.float32, max_model_len=100)
    assert built is not None
    return built.model


def test_layers_weights_and_cache_are_as_the_model_says(outline: Callable[..., ModelOutline]) -> None:
    found = outline()
    assert [layer.sliding_window for layer in found.plain_layers] == [None, 6, None, 6]
    assert found.num_parameters == 10 * 8 + 2 * 8 * 16  # the head's weight is the embedding's
    assert found.weight_bytes == 2 * found.num_parameters
    full, window = found.cache_kinds
    assert (full.spec, full.num_layers) == (found.kv_cache_specs[0], 2)
    assert (window.window, window.num_layers) == (6, 2)
    assert found.features == {"sliding_window"}
    assert found.head_dims == (16,)


def test_a_rank_of_several_is_described_without_the_others(outline: Callable[..., ModelOutline]) -> None:
    found = outline(tp_size=2)
    assert found.num_parameters == 5 * 8 + 8 * 16
    assert found.plain_layers[0].num_heads == 4
    assert found.kv_bytes_per_token(4) * 2 == outline().kv_bytes_per_token(4)


def test_the_model_is_built_as_a_runner_would_build_it() -> None:
    catalog, entry = registered(Small)
    built = build_on_meta(catalog, entry, {}, CONFIG, dtype=torch.bfloat16, max_model_len=100)
    assert built is not None
    assert built.model.seen == ("meta", torch.bfloat16, 100, 1)
    assert torch.get_default_dtype() is torch.float32
    assert {weight.device.type for weight in built.model.parameters()} == {"meta"}


def outline_of(*specs: KVCacheSpec, layers: tuple[LayerSpec | LatentSpec, ...] = ()) -> ModelOutline:
    return ModelOutline(layers=layers, kv_cache_specs=specs, num_parameters=0, weight_bytes=0)


def test_bytes_of_plain_latent_and_windowed_caches() -> None:
    full = FullAttentionSpec(dtype=torch.bfloat16, num_kv_heads=2, head_dim=16)
    window = SlidingWindowSpec(dtype=torch.bfloat16, num_kv_heads=2, head_dim=16, sliding_window=6)
    latent = LatentCacheSpec(dtype=torch.bfloat16, latent_dim=576)
    assert outline_of(*[latent] * 27).kv_bytes_per_token(16) == 27 * 1152 == 31_104
    assert outline_of(full, window, window).kv_bytes_per_token(16) == 3 * 128
    assert outline_of(full, window, window).kv_bytes_per_distant_token(16) == 128
    assert outline_of().kv_bytes_per_token(16) == outline_of().kv_bytes_per_request(100, 16, 1) == 0
    assert [kind.num_layers for kind in outline_of(full, window, full).cache_kinds] == [2, 1]


@pytest.mark.parametrize(
    ("num_tokens", "window", "blocks"),
    [
        (9, None, 3),
        (8, None, 2),
        (3, 6, 1),
        (100, 1, 1),
        (100, 2, 2),
        (100, 5, 2),
        (100, 6, 3),  # such as tokens 3 to 8 of blocks of 4, the last of which is new
    ],
)
def test_a_window_bounds_the_blocks_of_a_request(num_tokens: int, window: int | None, blocks: int) -> None:
    shape: dict[str, Any] = {"dtype": torch.float32, "num_kv_heads": 1, "head_dim": 1}
    spec = FullAttentionSpec(**shape) if window is None else SlidingWindowSpec(**shape, sliding_window=window)
    assert outline_of(spec).kv_bytes_per_request(num_tokens, 4, 1) == blocks * 4 * 2 * 4
    if window is not None:
        touched = [len({token // 4 for token in range(start, start + window)}) for start in range(8)]
        assert max(touched) == blocks or num_tokens < window


def test_what_is_needed_of_a_backend() -> None:
    capped = LayerSpec(num_heads=1, num_kv_heads=1, head_dim=64, v_head_dim=32, scale=1.0, soft_cap=5.0, sinks=True)
    found = outline_of(layers=(LAYER, capped, LATENT))
    assert found.features == {"soft_cap", "sinks", "mla"}
    assert found.head_dims == (16, 32, 64)
    assert found.plain_layers == (LAYER, capped)


def test_the_recorder_computes_nothing() -> None:
    recorder = RecordingAttention()
    layer, latent = recorder.build_layer(LAYER), recorder.build_latent_layer(LATENT)
    assert recorder.layers == [LAYER, LATENT]
    nothing: Any = None
    for compute in (
        lambda: layer.forward(nothing, nothing, nothing, nothing, nothing),
        lambda: latent.forward_absorbed(nothing, nothing, nothing),
        lambda: latent.forward_ragged(nothing, nothing, nothing, nothing),
        lambda: recorder.plan(AttentionMetadata.__new__(AttentionMetadata)),
    ):
        with pytest.raises(NotImplementedError, match="it computes nothing"):
            compute()


class Stubborn(Small):
    def __init__(self, *, options: object, context: BuildContext) -> None:
        super().__init__(options=options, context=context)
        self.first = float(self.embed.weight[0, 0])


class Numpy(Small):
    def __init__(self, *, options: object, context: BuildContext) -> None:
        super().__init__(options=options, context=context)
        self.rows = self.embed.weight.detach().numpy()


class Speechless(Small):
    def kv_cache_specs(self) -> list[KVCacheSpec]:
        raise KeyError("specs")


@pytest.mark.parametrize("load", [Stubborn, Numpy, Speechless])
def test_what_cannot_be_built_without_memory_is_no_fault(
    outline: Callable[..., ModelOutline | None], load: type[Small], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="vcore.engine.outline"):
        assert outline(load) is None
    assert "model 'small' of acme 1.0 cannot be" in caplog.text


class Refusing(Small):
    def __init__(self, *, options: object, context: BuildContext) -> None:
        raise UnsupportedModelError("found hidden_act 'relu'")


class Mistaken(Small):
    def __init__(self, *, options: object, context: BuildContext) -> None:
        self.scale = 1 / 0


class Indivisible(Small):
    def __init__(self, *, options: object, context: BuildContext) -> None:
        raise ConfigError("3 ranks do not divide 8 heads")


@pytest.mark.parametrize(
    ("load", "settings", "error", "match"),
    [
        (Refusing, {}, UnsupportedModelError, "found hidden_act 'relu'"),
        (Indivisible, {}, ConfigError, "3 ranks"),
        (Mistaken, {}, PluginBrokenError, "raised ZeroDivisionError: division by zero"),
        ("acme_absent:Small", {}, PluginBrokenError, "cannot be imported"),
        (Small, {"options": {"dept": 2}}, PluginOptionsError, "did you mean 'depth'"),
        (Small, {"tp_size": 3}, ConfigError, "does not divide this model's 16"),
    ],
)
def test_what_the_model_refuses_or_gets_wrong_is_an_error_now(
    outline: Callable[..., object], load: object, settings: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        outline(load, **settings)


# Weights

TENSORS = {
    "embed.weight": TensorInfo((10, 8), "float32"),
    "up.weight": TensorInfo((16, 8), "float32"),
    "down.weight": TensorInfo((8, 16), "Q4_1"),
}


def test_tensors_that_fit_are_told_by_their_headers() -> None:
    assert fit_weights(meta_model(), TENSORS) == WeightFit(True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"down.weight": None}, "1 missing: down.weight"),
        ({"gate.weight": TensorInfo((1,), "float32")}, "1 surplus: gate.weight"),
        ({"up.weight": TensorInfo((8, 16), "float32")}, "up.weight (model [16, 8], checkpoint [8, 16])"),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes: dict[str, TensorInfo | None], reason: str) -> None:
    tensors = {name: info for name, info in {**TENSORS, **changes}.items() if info is not None}
    fit = fit_weights(meta_model(), tensors)
    assert fit.fits is False
    assert reason in fit.reason


def test_a_loader_that_looks_at_values_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Small, checkpoint: CheckpointReader) -> None:
        checkpoint.read("embed.weight", (10, 8)).sum().item()

    monkeypatch.setattr(Small, "load_weights", load)
    assert fit_weights(meta_model(), TENSORS) == WeightFit(None)


def test_headers_give_shapes_and_refuse_what_is_not_there() -> None:
    checkpoint = HeaderCheckpoint(TENSORS)
    part = checkpoint.read("up.weight", (16, 8), (slice(4, 8), slice(None)))
    assert (part.shape, part.device.type) == ((4, 8), "meta")
    with pytest.raises(WeightsError, match=r"no tensor 'gate\.weight'"):
        checkpoint.read("gate.weight", (1,))
    with pytest.raises(WeightsError, match=r"shape \[16, 8\], and the model expects \[8, 16\]"):
        checkpoint.read("up.weight", (8, 16))


# The architectures that are served here

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def test_a_large_model_is_described_without_its_memory_and_without_kernels() -> None:
    """In a process of its own, for what is imported; of 16 GB, a few hundred MB would show that something was made."""
    script = (
        "import json, resource, sys, torch\n"
        "from vcore.config import PluginsConfig\n"
        "from vcore.engine.outline import outline_model\n"
        "from vcore.interfaces import HFConfig\n"
        "from vcore.plugins import discover\n"
        "catalog = discover(PluginsConfig())\n"
        "entry = catalog.find_by_key('model', 'LlamaForCausalLM')\n"
        f"config = HFConfig({LLAMA_8B!r})\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = outline_model(catalog, entry, {}, config, dtype=torch.bfloat16, max_model_len=131072)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "kernels = {'triton', 'flash_attn', 'xformers', 'transformers'} & set(sys.modules)\n"
        "print(json.dumps([found.num_parameters, found.kv_bytes_per_token(16), grown, sorted(kernels)]))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    parameters, per_token, grown_kib, kernels = json.loads(result.stdout)
    assert parameters == 8_030_261_248
    assert per_token == 131_072
    assert grown_kib < 100_000
    assert kernels == []
