"""The heads that a config asks for, and the refusal of numbers that do not fit each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vcore.errors import UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext
from vcore.layers import AttentionBlock, GatedMLP, Heads, NormStyle

CONFIG: dict[str, Any] = {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (6, 2, 8)),
        ({"head_dim": None}, (6, 2, 8)),
        ({"head_dim": 20}, (6, 2, 20)),
        ({"head_dim": 20, "hidden_size": 47}, (6, 2, 20)),
        ({"num_key_value_heads": None}, (6, 6, 8)),
        ({"num_key_value_heads": 6}, (6, 6, 8)),
    ],
    ids=str,
)
def test_heads_are_read_from_the_config(changes: dict[str, Any], expected: tuple[int, int, int]):
    heads = Heads.from_config(HFConfig(CONFIG | changes))
    assert (heads.num_heads, heads.num_kv_heads, heads.head_dim) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 47}, "hidden_size 47 is no multiple of num_attention_heads 6, and there is no head_dim"),
        ({"hidden_size": 0}, "hidden_size=0, expected a whole number above zero"),
        ({"num_key_value_heads": 4}, "num_attention_heads 6 is no multiple of num_key_value_heads 4"),
        ({"num_key_value_heads": 12}, "num_attention_heads 6 is no multiple of num_key_value_heads 12"),
        ({"num_key_value_heads": 0}, "num_key_value_heads=0, expected"),
        ({"num_attention_heads": None}, "num_attention_heads=None, expected"),
        ({"num_attention_heads": "6"}, "num_attention_heads='6', expected"),
        ({"num_attention_heads": True}, "num_attention_heads=True, expected"),
        ({"head_dim": 0}, "head_dim=0, expected"),
        ({"head_dim": [8]}, r"head_dim=\[8\], expected"),
    ],
    ids=str,
)
def test_numbers_that_do_not_fit_are_named(changes: dict[str, Any], message: str):
    with pytest.raises(UnsupportedModelError, match=f"config.json: .*{message}"):
        Heads.from_config(HFConfig(CONFIG | changes))


@pytest.mark.parametrize("key", ["num_attention_heads", "hidden_size"])
def test_a_key_that_lacks_is_named(key: str):
    with pytest.raises(UnsupportedModelError, match=f"config.json has no '{key}'"):
        Heads.from_config(HFConfig({name: value for name, value in CONFIG.items() if name != key}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_heads": 3}, "num_attention_heads 4 is no multiple of num_key_value_heads 3"),
        ({"head_dim": 0}, "head_dim=0"),
        ({"hidden_size": None}, "hidden_size=None"),
        ({"sliding_window": 0}, "sliding_window=0"),
        ({"sliding_window": "8"}, "sliding_window='8'"),
    ],
    ids=str,
)
def test_a_block_checks_what_an_author_hands_it(
    build_context: Callable[..., BuildContext], changes: dict[str, Any], message: str
):
    sizes: dict[str, Any] = {"hidden_size": 12, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, **changes}
    with pytest.raises(UnsupportedModelError, match=message):
        AttentionBlock(build_context(), 0, norms=NormStyle(eps=1e-5), **sizes)


@pytest.mark.parametrize("size", [0, None, 2.5])
def test_a_gated_mlp_checks_its_sizes(build_context: Callable[..., BuildContext], size: Any):
    with pytest.raises(UnsupportedModelError, match=f"found intermediate_size={size}, expected a whole number"):
        GatedMLP(build_context(), hidden_size=8, intermediate_size=size, norms=NormStyle(eps=1e-5))


@pytest.mark.parametrize("activation", ["spiral", ["silu"], None], ids=str)
def test_an_activation_that_there_is_not_lists_those_there_are(
    build_context: Callable[..., BuildContext], activation: Any
):
    with pytest.raises(UnsupportedModelError, match=r"asks for the activation .*, but .* gelu_pytorch_tanh, .*silu"):
        GatedMLP(build_context(), hidden_size=8, intermediate_size=8, norms=NormStyle(eps=1e-5), activation=activation)
