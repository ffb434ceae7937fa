"""Models, sources, loaders and backends that exist only here, in a real catalog."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vcore.config import EngineConfig, PluginOptions, load_config
from vcore.engine.resolve import Resolution, resolve
from vcore.errors import UnsupportedModelError
from vcore.interfaces.attention import LatentSpec, LayerSpec
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.sources import ModelSource, ModelSourceContext
from vcore.interfaces.weights import CheckpointReader, WeightLoader, WeightLoaderContext
from vcore.kv_cache.spec import KVCacheSpec, LatentCacheSpec
from vcore.layers import Attention, collect_kv_cache_specs
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry, EntryStatus, Origin, OriginKind
from vcore.plugins.specs import (
    AttentionBackendSpec,
    AttentionCapabilities,
    EvictionPolicySpec,
    ExecutorSpec,
    ModelSourceSpec,
    ModelSpec,
    ObserverSpec,
    PluginSpec,
    RoutingPolicySpec,
    SchedulingPolicySpec,
    WeightLoaderSpec,
)

HF_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}


class LocalSource(ModelSource):
    def __init__(self, *, options: None, context: ModelSourceContext) -> None:
        pass

    def fetch(self, name: str, *, from_file: Path | None = None) -> Path:
        return Path(name)


class FetchingSource(ModelSource):
    """Supplies every model from one folder, and remembers what it was asked."""

    folder: Path
    asked: list[tuple[str, bool]] = []

    def __init__(self, *, options: None, context: ModelSourceContext) -> None:
        self._offline = context.offline

    def fetch(self, name: str, *, from_file: Path | None = None) -> Path:
        self.asked.append((name, self._offline))
        return self.folder


class FolderLoader(WeightLoader):
    def __init__(self, *, options: None, context: WeightLoaderContext) -> None:
        self._path = context.path

    def config(self) -> HFConfig:
        folder = self._path.parent if self._path.is_file() else self._path
        return HFConfig(json.loads((folder / "config.json").read_text(encoding="utf-8")))

    def open(self) -> CheckpointReader:
        raise AssertionError("resolving reads no weights")

    def tokenizer_path(self) -> Path | None:
        return self._path / "own-tokenizer"

    def generation_config(self) -> dict[str, object]:
        return {"eos_token_id": [7, 8], "temperature": 0.6}


class TinyModel(Model):
    """Layers of attention as the config has them, between an embedding and a head that share a weight."""

    def __init__(self, *, options: object, context: BuildContext) -> None:
        super().__init__()
        config = context.config
        if config.get("hidden_act", "silu") != "silu":
            raise UnsupportedModelError("hidden_act must be 'silu'")
        heads = config.num_attention_heads
        head_dim = config.get("head_dim") or config.hidden_size // heads
        kinds = config.get("windows") or [None] * config.num_hidden_layers
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.head.weight = self.embed.weight
        self.layers = nn.ModuleList(
            Attention(
                context,
                index,
                LayerSpec(
                    num_heads=heads,
                    num_kv_heads=config.num_key_value_heads,
                    head_dim=head_dim,
                    scale=1.0,
                    sliding_window=window,
                    soft_cap=config.get("soft_cap"),
                ),
            )
            for index, window in enumerate(kinds)
        )

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        raise AssertionError("resolving computes nothing")

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        raise AssertionError("resolving computes nothing")

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        checkpoint.read("embed.weight", tuple(self.embed.weight.shape))

    def kv_cache_specs(self) -> list[KVCacheSpec]:
        return collect_kv_cache_specs(self)


class LatentModel(TinyModel):
    """Latent attention, asked for at the backend directly."""

    def __init__(self, *, options: object, context: BuildContext) -> None:
        Model.__init__(self)
        self.embed = nn.Embedding(context.config.vocab_size, context.config.hidden_size)
        self.num_layers = context.config.num_hidden_layers
        spec = LatentSpec(
            num_heads=4, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, scale=1.0
        )
        for _ in range(self.num_layers):
            context.attention.build_latent_layer(spec)
        self.dtype = context.dtype

    def kv_cache_specs(self) -> list[KVCacheSpec]:
        return [LatentCacheSpec(dtype=self.dtype, latent_dim=576)] * self.num_layers


class StubbornModel(TinyModel):
    """Looks at a value while it is built, which cannot be done without memory."""

    def __init__(self, *, options: object, context: BuildContext) -> None:
        super().__init__(options=options, context=context)
        self.first = self.embed.weight[0, 0].item()


class WindowOptions(PluginOptions):
    window: int = 1


def never(*, options: object, context: object) -> None:
    raise AssertionError("resolving creates no such plugin")


def capabilities(**changes: Any) -> AttentionCapabilities:
    listed: dict[str, Any] = {
        "devices": ("*",),
        "dtypes": ("float32", "bfloat16", "float16"),
        "head_dims": None,
        "block_sizes": None,
    }
    return AttentionCapabilities(**listed | changes)


def entry_of(
    spec: PluginSpec, distribution: str = "vcore-engine", status: EntryStatus = EntryStatus.OK
) -> CatalogEntry:
    return CatalogEntry(
        kind=spec.kind,
        name=spec.name,
        spec=spec,
        distribution=distribution,
        version="1.0",
        status=status,
        reason="" if status is EntryStatus.OK else "broken for a test",
        origin=Origin(how=OriginKind.ENTRY_POINT, name=spec.name),
    )


def base_specs() -> list[PluginSpec]:
    return [
        ModelSpec(name="llama", load=TinyModel, api="1.0", architectures=("LlamaForCausalLM", "MistralForCausalLM")),
        ModelSpec(name="latent", load=LatentModel, api="1.0", architectures=("LatentForCausalLM",)),
        ModelSpec(name="stubborn", load=StubbornModel, api="1.0", architectures=("StubbornForCausalLM",)),
        ModelSourceSpec(name="local", load=LocalSource, api="1.0", schemes=("file",)),
        ModelSourceSpec(
            name="shelf",
            load=FetchingSource,
            api="1.0",
            schemes=("shelf",),
            models=("tiny-model", "other-model"),
            pattern=r"[\w-]+/[\w-]+",
        ),
        WeightLoaderSpec(
            name="safetensors",
            load=FolderLoader,
            api="1.0",
            rank=20,
            formats=("safetensors",),
            suffixes=(".safetensors",),
        ),
        WeightLoaderSpec(name="gguf", load=FolderLoader, api="1.0", rank=10, formats=("gguf",), suffixes=(".gguf",)),
        WeightLoaderSpec(name="dummy", load=FolderLoader, api="1.0", formats=("dummy",)),
        AttentionBackendSpec(name="plain", load=never, api="1.0", capabilities=capabilities()),
        SchedulingPolicySpec(name="fcfs", load=never, api="1.0", rank=10),
        SchedulingPolicySpec(name="priority", load=never, api="1.0"),
        EvictionPolicySpec(name="lru", load=never, api="1.0", rank=10, options=WindowOptions),
        RoutingPolicySpec(name="round_robin", load=never, api="1.0", rank=10),
        ExecutorSpec(name="uniproc", load=never, api="1.0", rank=10),
        ExecutorSpec(name="multiproc", load=never, api="1.0", max_world_size=8),
        ObserverSpec(name="counter", load=never, api="1.0"),
    ]


@pytest.fixture
def make_catalog() -> Callable[..., Catalog]:
    """A catalog of the plugins above: without some kinds of names, with other entries, with preferred distributions."""

    def make(*more: CatalogEntry, without: tuple[str, ...] = (), prefer: tuple[str, ...] = ()) -> Catalog:
        entries = [entry_of(spec) for spec in base_specs() if spec.name not in without]
        return Catalog([*entries, *more], prefer=prefer)

    return make


@pytest.fixture
def catalog(make_catalog: Callable[..., Catalog]) -> Catalog:
    return make_catalog()


@pytest.fixture
def make_entry() -> Callable[..., CatalogEntry]:
    return entry_of


@pytest.fixture
def make_capabilities() -> Callable[..., AttentionCapabilities]:
    return capabilities


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model's folder; keywords change its config.json, None removes a key."""

    def write(name: str = "model", files: tuple[str, ...] = ("model.safetensors",), **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        values = {key: value for key, value in (HF_CONFIG | changes).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
        for file in files:
            (folder / file).touch()
        return folder

    return write


@pytest.fixture
def shelf(write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What the fetching source was asked for: names, and whether it was offline."""
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(FetchingSource, "asked", asked)
    monkeypatch.setattr(FetchingSource, "folder", write_model("on-the-shelf"), raising=False)
    return asked


@pytest.fixture
def resolve_model(write_model: Callable[..., Path], catalog: Catalog) -> Callable[..., Resolution]:
    """Resolves dotted keys and values over a model's folder, on the CPU unless they say otherwise."""

    def run(settings: dict[str, Any] | None = None, *, using: Catalog | None = None, **changes: Any) -> Resolution:
        tree = {"model.path": str(write_model(**changes)), "runtime.device": "cpu"} | (settings or {})
        return resolve(load_config(tree), using or catalog)

    return run


@pytest.fixture
def decided() -> Callable[[Resolution], dict[str, Any]]:
    """The decisions of a resolution, by key."""
    return lambda resolution: {decision.key: decision for decision in resolution.decisions}


@pytest.fixture
def defaults() -> EngineConfig:
    return EngineConfig()
