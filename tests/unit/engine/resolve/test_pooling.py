"""`model.pooling`: what the configuration wants, what a checkpoint says, and what is refused only when it is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vcore.engine.pooling import ModelPooling
from vcore.engine.resolve.pooling import resolve_pooling
from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig

CONFIG = HFConfig({"hidden_size": 64})
FLAGS = {
    "word_embedding_dimension": 64,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": False,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
    "pooling_mode_weightedmean_tokens": False,
    "pooling_mode_lasttoken": False,
    "include_prompt": True,
}


def write(
    folder: Path, pooling: Any, *kinds: str, prefix: str = "sentence_transformers.models.", path: str = "1_Pooling"
) -> Path:
    kinds = kinds or ("Transformer", "Pooling", "Normalize")
    paths = {"Transformer": "", "Pooling": path}
    modules = [
        {"idx": i, "name": str(i), "path": paths.get(kind, f"{i}_{kind}"), "type": prefix + kind}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def resolved(folder: Path, wanted: str = "auto") -> tuple[ModelPooling, str]:
    pooling, decision = resolve_pooling(wanted, folder, CONFIG)
    if wanted != "auto":
        assert decision is None
        return pooling, ""
    assert decision is not None
    assert decision.key == "model.pooling"
    assert decision.value == (pooling.mode or "none")
    return pooling, decision.why


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        (FLAGS | {"pooling_mode_lasttoken": True}, "last"),
        (FLAGS | {"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_the_checkpoint_says_how(tmp_path: Path, pooling: Any, mode: str) -> None:
    found, why = resolved(write(tmp_path, pooling))
    assert (found.mode, found.size, found.normalize) == (mode, 64, True)
    assert "1_Pooling/config.json says" in why
    assert "normalised" in why


def test_without_a_module_for_it_vectors_are_not_normalised(tmp_path: Path) -> None:
    folder = write(tmp_path, {"pooling_mode": "mean"}, "Transformer", "Pooling")
    found, why = resolved(folder)
    assert (found.mode, found.normalize) == ("mean", False)
    assert "not normalised" in why


def test_other_packages_have_the_same_names(tmp_path: Path) -> None:
    prefix = "sentence_transformers.sentence_transformer.modules."
    assert resolved(write(tmp_path, {"pooling_mode": "mean"}, prefix=prefix))[0].mode == "mean"


def test_most_models_make_none(tmp_path: Path) -> None:
    found, why = resolved(tmp_path)
    assert found.mode is None
    assert "without modules.json" in why
    assert found.why_not == why
    (tmp_path / "model.gguf").touch()
    assert resolved(tmp_path / "model.gguf")[0].mode is None


@pytest.mark.parametrize(
    ("pooling", "kinds", "says"),
    [
        (FLAGS | {"pooling_mode_cls_token": True}, (), "asks for the pooling 'cls'; served are lasttoken and mean"),
        (FLAGS, (), "no kind of pooling"),
        (FLAGS | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, (), "cls with mean"),
        ({"pooling_mode": "weightedmean"}, (), "'weightedmean'"),
        ([1], (), "is no object"),
        ({"pooling_mode": "mean"}, ("Transformer", "Pooling", "Dense", "Normalize"), "a module 'Dense'"),
        ({"pooling_mode": "mean"}, ("Transformer", "Normalize"), "has 0 modules that pool"),
    ],
)
def test_what_is_not_served_waits_until_it_is_needed(
    tmp_path: Path, pooling: Any, kinds: tuple[str, ...], says: str
) -> None:
    """The engine starts, and generates; only a request for an embedding hears of it."""
    found, why = resolved(write(tmp_path, pooling, *kinds))
    assert found.mode is None
    assert says in why
    assert says in found.why_not


@pytest.mark.parametrize(
    "content", ["{", '{"a": 1}', '["a"]', "\xff", "[" * 100_000], ids=["cut", "object", "texts", "bytes", "deep"]
)
def test_a_damaged_list_of_modules_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "modules.json").write_bytes(content.encode("latin-1"))
    found, why = resolved(tmp_path)
    assert found.mode is None
    assert "modules.json" in why


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "missing"])
def test_paths_stay_in_the_model_s_folder(tmp_path: Path, path: str) -> None:
    found, why = resolved(write(tmp_path, {"pooling_mode": "mean"}, path=path))
    assert found.mode is None
    assert "leads out" in why or "missing/config.json cannot be read: No such file" in why
    assert str(tmp_path) not in why


def test_vectors_are_not_normalised_before_they_are_pooled(tmp_path: Path) -> None:
    found, why = resolved(write(tmp_path, {"pooling_mode": "mean"}, "Transformer", "Normalize", "Pooling"))
    assert found.mode is None
    assert "before it pools" in why


@pytest.mark.parametrize("wanted", ["last", "mean"])
def test_the_configuration_comes_first(tmp_path: Path, wanted: str) -> None:
    """But for what it does not say: whether vectors are normalised."""
    folder = write(tmp_path, FLAGS | {"pooling_mode_cls_token": True}, "Transformer", "Pooling")
    found, _ = resolved(folder, wanted)
    assert (found.mode, found.normalize) == (wanted, False)
    (folder / "modules.json").unlink()
    assert resolved(folder, wanted)[0].normalize is True


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    found, _ = resolved(write(tmp_path, {"pooling_mode": "mean"}), "none")
    assert found == ModelPooling(why_not="model.pooling is none")


@pytest.mark.parametrize("values", [{"n_embd": 7}, {"d_model": 7}, {"text_config": {"hidden_size": 7}}])
def test_other_names_of_the_width(tmp_path: Path, values: dict[str, Any]) -> None:
    assert resolve_pooling("last", tmp_path, HFConfig(values))[0].size == 7


def test_a_config_without_the_width_is_refused_if_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"none of hidden_size, n_embd, d_model.*model\.pooling=none"):
        resolve_pooling("mean", tmp_path, HFConfig({}))
    assert resolve_pooling("auto", tmp_path, HFConfig({}))[0].mode is None


@pytest.mark.parametrize(
    "values", [{"is_causal": False}, {"use_bidirectional_attention": True}, {"text_config": {"is_causal": False}}]
)
def test_attention_in_both_directions_is_not_passed_off(tmp_path: Path, values: dict[str, Any]) -> None:
    """Vectors would come, and be wrong: so none do, and asking outright is an error."""
    config = HFConfig({"hidden_size": 7} | values)
    write(tmp_path, {"pooling_mode": "mean"})
    pooling, decision = resolve_pooling("auto", tmp_path, config)
    assert pooling.mode is None
    assert decision is not None
    assert "both directions" in decision.why
    with pytest.raises(UnsupportedModelError, match="both directions"):
        resolve_pooling("last", tmp_path, config)
    assert resolve_pooling("none", tmp_path, config)[0].mode is None
    assert resolve_pooling("last", tmp_path, HFConfig({"hidden_size": 7, "is_causal": True}))[0].mode == "last"


@pytest.mark.parametrize(
    ("stated", "mode", "why"),
    [
        ("mean", "mean", "the model's file says mean"),
        ("lasttoken", "last", "the model's file says lasttoken"),
        ("none", None, "nothing is pooled"),
        ("cls", None, "asks for the pooling 'cls'; served are lasttoken and mean"),
        ("pooling_type 9", None, "'pooling_type 9'"),
        (["mean"], None, "asks for the pooling"),
    ],
)
def test_a_file_without_modules_says_it_in_its_configuration(
    tmp_path: Path, stated: Any, mode: str | None, why: str
) -> None:
    config = HFConfig({"hidden_size": 64, "embedding_pooling": stated})
    pooling, decision = resolve_pooling("auto", tmp_path / "model.gguf", config)
    assert decision is not None
    assert (pooling.mode, decision.value) == (mode, mode or "none")
    assert why in decision.why
    assert pooling.normalize or mode is None


def test_modules_say_more_than_the_configuration(tmp_path: Path) -> None:
    write(tmp_path, {"pooling_mode": "lasttoken"}, "Transformer", "Pooling")
    pooling, _ = resolve_pooling("auto", tmp_path, HFConfig({"hidden_size": 64, "embedding_pooling": "mean"}))
    assert (pooling.mode, pooling.normalize) == ("last", False)
