"""What can be said of a configuration on another machine, and without the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vcore.config import load_config
from vcore.engine.resolve import check_portable
from vcore.errors import ConfigError, ModelNotFoundError, PluginNotFoundError, PluginOptionsError
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import AttentionBackendSpec, AttentionCapabilities


def never(*, options: object, context: object) -> None: ...


def test_hardware_and_model_that_are_not_here_are_fine(catalog: Catalog, shelf: list[tuple[str, bool]]) -> None:
    tree = {"model.path": "tiny-model", "runtime.device": "cuda:7", "runtime.tensor_parallel_size": 8}
    report = check_portable(load_config(tree), catalog)
    assert "limits" in report.checked
    assert "whether the device is there" in report.unchecked
    assert "the attention backend" in report.unchecked
    assert shelf == []


@pytest.mark.parametrize(
    ("tree", "error", "match"),
    [
        ({"runtime.device": "CUDA 1"}, ConfigError, "found 'CUDA 1'"),
        ({"scheduler.max_num_seqs": 9, "scheduler.max_num_batched_tokens": 8}, ConfigError, "max_num_seqs=9"),
        (
            {"scheduler": {"chunked_prefill": False, "max_num_batched_tokens": 8}, "model.max_model_len": 9},
            ConfigError,
            "max_model_len=9",
        ),
        ({"runtime.tensor_parallel_size": 9}, ConfigError, "no installed executor runs 9 ranks"),
        ({"model.path": "tiny-modle"}, ModelNotFoundError, "did you mean 'tiny-model'"),
        ({"cache.eviction": "lur"}, PluginNotFoundError, "did you mean 'lru'"),
        ({"cache.eviction": {"name": "lru", "options": {"window": "x"}}}, PluginOptionsError, "window: found 'x'"),
    ],
)
def test_what_could_serve_nowhere_is_refused(
    catalog: Catalog, tree: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        check_portable(load_config({"model.path": "tiny-model"} | tree), catalog)


def test_a_named_backend_is_held_against_what_is_written(
    make_catalog: Callable[..., Catalog],
    make_entry: Callable[..., CatalogEntry],
    make_capabilities: Callable[..., AttentionCapabilities],
) -> None:
    listed = make_capabilities(devices=("cuda",), block_sizes=(256,))
    spec = AttentionBackendSpec(name="narrow", load=never, api="1.0", capabilities=listed)
    catalog = make_catalog(make_entry(spec))
    tree = {"model.path": "tiny-model", "attention.backend": "narrow"}
    assert "the attention backend" not in check_portable(load_config(tree), catalog).unchecked
    assert check_portable(load_config(tree | {"runtime.device": "cuda:3"}), catalog).checked
    with pytest.raises(ConfigError, match="could not serve: runs on cuda, not on cpu; needs blocks of a multiple"):
        check_portable(load_config(tree | {"runtime.device": "cpu", "cache.block_size": 16}), catalog)
