"""Models, sources, loaders and backends that exist only here, in a real catalog."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vcore.config import EngineConfig, PluginOptions, load_config
from vcore.engine.resolve import Resolution, resolve
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.sources import ModelSource, ModelSourceContext
from vcore.interfaces.weights import CheckpointReader, WeightLoader, WeightLoaderContext
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
        ModelSpec(name="llama", load=never, api="1.0", architectures=("LlamaForCausalLM", "MistralForCausalLM")),
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
