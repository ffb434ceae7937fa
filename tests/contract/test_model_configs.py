"""Configs with values that cannot be: every model refuses them by name, or has nothing to do with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from vcore_backends.torch_sdpa.backend import TorchSDPABackend

from vcore.config import PluginsConfig
from vcore.engine.resolve.hf_values import check_values
from vcore.errors import UnsupportedModelError, VcoreError, WeightsError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import Model
from vcore.plugins import Catalog, PluginKind, discover
from vcore.testing import MemoryCheckpoint, ModelCase, ModelDriver, TinyCheckpoint

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2")
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
MUST_BE_REFUSED: dict[str, Sequence[Any]] = {
    **dict.fromkeys(SIZES, (0, -1, 7, 10**9, 2**40, "48", 3.5, True, [48], {})),
    "max_position_embeddings": (-1, 2**40, "64", 3.5, True),
    "rms_norm_eps": ("small", [1], {}, True),
    "hidden_act": ("spiral", "gelu", None, [], {}, 3),
    "rope_parameters": (
        *([1], "default", 3),
        *({"rope_type": value} for value in ("spiral", "linear", "dynamic", "llama3", "longrope")),
        *({"rope_type": "linear", "factor": value} for value in ("2", [2], True)),
        *({"rope_theta": value} for value in (-1, True, [1], {}, "big")),
        *({"partial_rotary_factor": value} for value in (-1, 1e-9, 2, "half", [1])),
    ),
}
ANYTHING = (0, -1, 1, 7, 2**40, "48", 3.5, None, True, [48], {}, {"a": 1}, "spiral")
MAY_BE_REFUSED = (
    *("sliding_window", "layer_types", "use_sliding_window", "max_window_layers"),
    *("attention_bias", "mlp_bias", "tie_word_embeddings"),
    *("rope_scaling", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"),
)
OTHER_WORDS = "does not fit|layer_types|rope scaling|rope_theta|partial_rotary_factor|activation"
Build = Callable[..., None]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover(PluginsConfig(allow=("vcore-engine",)))


@pytest.fixture(scope="module", params=MODEL_TYPES)
def build(request: pytest.FixtureRequest, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds, loads and runs the tiny model of a type with some keys of its config changed."""

    class Case(ModelCase):
        model_type = request.param
        overrides = {"use_sliding_window": True} if "qwen" in request.param else {}

    folder: Path = tmp_path_factory.mktemp(request.param)
    tiny = TinyCheckpoint(Case.make_config(), folder)
    entry = catalog.find_by_key(PluginKind.MODEL, tiny.config.architectures[0])
    model: Any = catalog.load(entry)
    assert issubclass(model, Model)

    def build(**changes: Any) -> None:
        config = HFConfig(tiny.config.to_dict() | changes)
        check_values(config)
        driver = ModelDriver(
            model, config, MemoryCheckpoint(tiny.tensors), attention=TorchSDPABackend, max_model_len=64
        )
        driver.step({"a": tiny.prompt(20)})

    return build


def test_the_config_unchanged_is_served(build: Build):
    build()


@pytest.mark.parametrize("key", MUST_BE_REFUSED)
def test_what_cannot_be_is_refused_by_name(build: Build, key: str):
    """By the key, or, for a number that could be, by the tensors of the checkpoint that it does not fit."""
    for value in MUST_BE_REFUSED[key]:
        with pytest.raises(VcoreError, match=f"{key}|{OTHER_WORDS}"):
            build(**{key: value})


@pytest.mark.parametrize("key", [key for key in SIZES if key not in ("head_dim", "num_key_value_heads")])
def test_a_size_that_is_null_is_refused_by_name(build: Build, key: str):
    with pytest.raises(UnsupportedModelError, match=f"{key}=None"):
        build(**{key: None})


@pytest.mark.parametrize("key", MAY_BE_REFUSED)
def test_whatever_else_stands_there_is_served_or_refused(build: Build, key: str):
    """Not every architecture reads the key, and some of the values are right; none is an accident."""
    for value in ANYTHING:
        with suppress(UnsupportedModelError, WeightsError):
            build(**{key: value})
