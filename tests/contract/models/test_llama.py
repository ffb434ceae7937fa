"""Llama, with every kind of heads, biases and rope scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from vcore_backends.torch_sdpa.backend import TorchSDPABackend
from vcore_model_zoo.llama.model import LlamaForCausalLM

from vcore.testing import MemoryCheckpoint, ModelContract, ModelDriver, TinyCheckpoint


def _rope(rope_type: str, **numbers: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10_000.0, **numbers}}


class Llama(ModelContract):
    model_type = "llama"


class TestPlain(Llama):
    pass


class TestOldName(Llama):
    architecture = "LLaMAForCausalLM"


class TestTheta(Llama):
    overrides = _rope("default") | {"rms_norm_eps": 1e-3}


class TestTied(Llama):
    overrides = {"tie_word_embeddings": True}


class TestAHeadPerGroup(Llama):
    overrides = {"num_key_value_heads": 6}


class TestOneKeyValueHead(Llama):
    overrides = {"num_key_value_heads": 1}


class TestHeadDim(Llama):
    overrides = {"head_dim": 20}


class TestBiases(Llama):
    overrides = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}


class TestLinear(Llama):
    overrides = _rope("linear", factor=3.0)


class TestDynamic(Llama):
    overrides = _rope("dynamic", factor=4.0)


class TestLlama3(Llama):
    overrides = _rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
    )


class TestYarn(Llama):
    overrides = _rope("yarn", factor=4.0, original_max_position_embeddings=16)


class TestManyRanks(Llama):
    """With more ranks than key-value heads, several keep the same one."""

    overrides = {"intermediate_size": 60}
    tensor_parallel = (2, 6)


class TestThreeRanks(Llama):
    overrides = {"num_key_value_heads": 3, "intermediate_size": 60}
    tensor_parallel = (3,)


@pytest.mark.parametrize("length", [TestDynamic.max_model_len + 1, 100])
def test_dynamic_scaling_beyond_the_trained_length(length: int, tmp_path: Path):
    """Whole prompts of `max_model_len` tokens are as in transformers, and so is every chunking of them."""
    tiny = TinyCheckpoint(TestDynamic.make_config(), tmp_path)
    prompt = tiny.prompt(length)
    expected = tiny.logits(prompt)
    driver = ModelDriver(
        LlamaForCausalLM,
        tiny.config,
        MemoryCheckpoint(tiny.tensors),
        attention=TorchSDPABackend,
        max_model_len=length,
    )
    torch.testing.assert_close(driver.step({"whole": prompt})["whole"], expected, rtol=1e-4, atol=1e-4)
    chunks = [driver.step({"chunked": chunk})["chunked"] for chunk in (prompt[:50], prompt[50:-1], prompt[-1:])]
    torch.testing.assert_close(torch.cat(chunks), expected, rtol=1e-4, atol=1e-4)
