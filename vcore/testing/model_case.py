"""`ModelCase`: a tiny random model, the plugin that serves it, and what tests of both share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

from vcore.config import load_config
from vcore.engine.llm import LLM
from vcore.engine.outline import MetaModel, build_on_meta
from vcore.interfaces.attention import AttentionBackend
from vcore.interfaces.model import Model
from vcore.layers.weights import WeightMap
from vcore.plugins import AttentionBackendSpec, Catalog, CatalogEntry, PluginKind, discover
from vcore.testing.memory_checkpoint import MemoryCheckpoint
from vcore.testing.model_driver import ModelDriver
from vcore.testing.tiny_checkpoint import TinyCheckpoint
from vcore.testing.wrong_weight_maps import wrong_weight_maps

__all__ = ["NUM_GREEDY", "ModelCase"]

_TINY: Mapping[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
"""What a case's config has unless it says otherwise."""

NUM_GREEDY = 32
"""Tokens that are generated for each prompt."""


class ModelCase:
    """What a case states, and what its tests share; the tests are in `ModelContract`."""

    model_type: ClassVar[str]
    """As transformers calls it, e.g. ``"llama"``."""
    overrides: ClassVar[Mapping[str, Any]] = {}
    """Keys of the config, over tiny defaults: two layers, hidden size 48, 6 heads, 2 key-value heads, 61 tokens,
    64 positions."""
    max_model_len: ClassVar[int] = 64
    """The longest request; the tests' have up to 62 tokens."""
    tolerance: ClassVar[float] = 1e-4
    """Relative and absolute, between our logits and those of transformers."""
    weight_scale: ClassVar[float] = 0.3
    """Standard deviation of the random weights."""
    architecture: ClassVar[str | None] = None
    """What config.json shall name, if it is not what transformers writes."""
    plugins: ClassVar[Sequence[object]] = ()
    """Plugins that are not installed: files (as `pathlib.Path`) or objects, as ``LLM(plugins=...)`` takes them."""
    attention_backend: ClassVar[str | None] = None
    """The backend's name; None for the foremost one that runs on a CPU."""
    tensor_parallel: ClassVar[tuple[int, ...]] = (2,)
    """Over how many ranks the model must split; empty for a model that does not."""
    lower_precision: ClassVar[float] = 0.98
    """How alike logits in bfloat16 and float16 must be to the reference's in float32: the mean cosine over tokens."""
    insensitive: ClassVar[tuple[str, ...]] = ()
    """Names of checkpoint tensors that logits do not depend on in this case."""

    # What a case may override

    @classmethod
    def make_config(cls) -> Any:  # a transformers configuration; the library has no types
        """The configuration of the tiny model, a `transformers.PretrainedConfig`."""
        keys = deepcopy({**_TINY, **cls.overrides})  # transformers writes into what it is given
        return AutoConfig.for_model(cls.model_type, **keys)

    @classmethod
    def wrong_models(cls, model: Callable[..., Model]) -> Iterator[tuple[str, Callable[..., Model]]]:
        """Models like `model`, each with one mistake in how it maps weights, and a description of the mistake.

        By default subclasses of the model's class with another `weight_map`. Override it for a plugin that loads its
        weights in another way.
        """
        right = getattr(model, "weight_map", None)
        if not isinstance(model, type) or not isinstance(right, WeightMap):
            pytest.fail(f"{model!r} is no class with a weight_map; override {cls.__name__}.wrong_models")
        for mistake, weight_map in wrong_weight_maps(right):
            yield mistake, cast(type[Model], type("Wrong", (model,), {"weight_map": weight_map}))

    # What the tests share

    @classmethod
    def served_architecture(cls) -> str:
        """The architecture that this case is of."""
        return cls.architecture or str(MODEL_FOR_CAUSAL_LM_MAPPING[type(cls.make_config())].__name__)

    @pytest.fixture(scope="class")
    @classmethod
    def catalog(cls) -> Catalog:
        """What is installed, and the case's own plugins."""
        return discover(load_config({"plugins": cls._plugin_files()}).plugins, objects=cls._plugin_objects())

    @classmethod
    def _plugin_files(cls) -> dict[str, Any]:
        return {"load": [str(one) for one in cls.plugins if isinstance(one, Path)]}

    @classmethod
    def _plugin_objects(cls) -> list[object]:
        return [one for one in cls.plugins if not isinstance(one, Path)]

    @pytest.fixture(scope="class")
    @classmethod
    def tiny(cls, tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
        """The reference, and the folder it was saved to."""
        folder = tmp_path_factory.mktemp(cls.__name__)
        return TinyCheckpoint(cls.make_config(), folder, architecture=cls.architecture, weight_scale=cls.weight_scale)

    @pytest.fixture(scope="class")
    @classmethod
    def entry(cls, catalog: Catalog, tiny: TinyCheckpoint) -> CatalogEntry:
        """The plugin, found as an engine finds it."""
        (architecture,) = tiny.config.architectures
        return catalog.find_by_key(PluginKind.MODEL, architecture)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, catalog: Catalog, entry: CatalogEntry) -> Callable[..., Model]:
        """What the plugin's `load` names."""
        return cast(Callable[..., Model], catalog.load(entry))

    @pytest.fixture(scope="class")
    @classmethod
    def without_memory(cls, catalog: Catalog, tiny: TinyCheckpoint, entry: CatalogEntry) -> MetaModel:
        """The model, built on torch's ``meta`` device, and what it asked for."""
        built = build_on_meta(catalog, entry, {}, tiny.config, dtype=torch.float32, max_model_len=cls.max_model_len)
        assert built is not None, "the model looks at values while it is built"
        return built

    @pytest.fixture(scope="class")
    @classmethod
    def attention(cls, catalog: Catalog) -> Callable[..., AttentionBackend]:
        """The attention backend."""
        if cls.attention_backend is not None:
            entry = catalog.find(PluginKind.ATTENTION_BACKEND, cls.attention_backend)
        else:
            candidates = catalog.candidates(PluginKind.ATTENTION_BACKEND)
            entry = next(one for one in candidates if _runs_on_cpu(one))
        return cast(Callable[..., AttentionBackend], catalog.load(entry))

    @pytest.fixture(scope="class")
    @classmethod
    def driver(
        cls, tiny: TinyCheckpoint, model: Callable[..., Model], attention: Callable[..., AttentionBackend]
    ) -> Callable[..., ModelDriver]:
        """Makes a `ModelDriver`; keywords replace its arguments, `model` and `tensors` what is loaded."""

        def make(
            *, model: Callable[..., Model] = model, tensors: Mapping[str, torch.Tensor] = tiny.tensors, **keywords: Any
        ) -> ModelDriver:
            settings = {"max_model_len": cls.max_model_len, **keywords}
            return ModelDriver(model, tiny.config, MemoryCheckpoint(tensors), attention=attention, **settings)

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tiny: TinyCheckpoint, entry: CatalogEntry) -> Iterator[LLM]:
        """A whole engine with small blocks and small steps, on the files."""
        tree = {
            "model": {
                "skip_tokenizer": True,
                "pooling": "mean",
                "dtype": "float32",
                "max_model_len": cls.max_model_len,
            },
            "runtime": {"device": "cpu"},
            "cache": {"block_size": 4, "num_blocks": 200},
            "scheduler": {"max_num_batched_tokens": 17, "max_num_seqs": 8},
            "plugins": cls._plugin_files(),
        }
        if cls.attention_backend is not None:
            tree["attention"] = {"backend": cls.attention_backend}
        with LLM(str(tiny.folder), config=tree, plugins=cls._plugin_objects(), progress=False) as llm:
            yield llm

    @pytest.fixture(scope="class")
    @classmethod
    def prompts(cls, tiny: TinyCheckpoint) -> list[list[int]]:
        """Of several lengths up to 30, some with a beginning in common, longer than most tiny windows."""
        shared = tiny.prompt(14, seed=1)
        own = [tiny.prompt(length, seed=2 + index) for index, length in enumerate((16, 7, 9, 1))]
        return [shared + own[0], shared + own[1], own[2], own[3], shared + own[0]]

    @pytest.fixture(scope="class")
    @classmethod
    def greedy(cls, tiny: TinyCheckpoint, prompts: list[list[int]]) -> list[list[int]]:
        """What transformers generates for each prompt."""
        return [tiny.greedy_tokens(prompt, NUM_GREEDY) for prompt in prompts]


def _runs_on_cpu(entry: CatalogEntry) -> bool:
    spec = entry.spec
    return isinstance(spec, AttentionBackendSpec) and bool({"cpu", "*"} & set(spec.capabilities.devices))
