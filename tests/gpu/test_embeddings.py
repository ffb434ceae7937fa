"""Embeddings on a device: captured decode steps, segments and cached prefixes against kernels launched one by one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vcore import LLM, AsyncLLM, EngineConfig, PoolingParams, SamplingParams

pytestmark = pytest.mark.gpu

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_hidden_layers": 4,
    "vocab_size": 1000,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
PROMPTS = [[(7 * i + j) % 1000 for j in range(1 + 16 * i)] for i in range(9)]
"""Of one token more than whole blocks: once they are cached, the last token alone is computed."""
GREEDY = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True, detokenize=False)


def config_of(folder: Path, pooling: str, **runtime: Any) -> EngineConfig:
    (folder / "config.json").write_text(json.dumps(LLAMA))
    model = {"path": str(folder), "load_format": "dummy", "skip_tokenizer": True, "dtype": "float32"}
    tree = {
        "model": {**model, "pooling": pooling},
        "runtime": {"device": "cuda:0", **runtime},
        "scheduler": {"max_num_seqs": 6, "max_num_batched_tokens": 100},
        "cache": {"num_blocks": 400, "block_size": 16},
    }
    return EngineConfig.model_validate(tree)


def vectors(llm: LLM) -> NDArray[np.float32]:
    return np.stack([output.embedding for output in llm.embed(PROMPTS, PoolingParams(normalize=False), progress=False)])


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vectors_are_those_of_eager_steps(tmp_path: Path, pooling: str) -> None:
    with LLM(config=config_of(tmp_path, pooling, enforce_eager=True, async_scheduling=False)) as llm:
        expected = vectors(llm)
    assert np.abs(expected).max() > 0.1
    with LLM(config=config_of(tmp_path, pooling)) as llm:
        for _ in range(2):  # the second time, for last, from cached prefixes
            np.testing.assert_allclose(vectors(llm), expected, rtol=1e-3, atol=1e-4)


def test_embeddings_and_generation_share_steps(tmp_path: Path) -> None:
    with LLM(config=config_of(tmp_path, "last", enforce_eager=True, async_scheduling=False)) as llm:
        expected = vectors(llm)
        tokens = [list(output.outputs[0].token_ids) for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]

    async def both() -> tuple[list[Any], list[Any]]:
        async with AsyncLLM(config=config_of(tmp_path, "last"), in_process=True) as llm:

            async def generate(prompt: list[int]) -> list[int]:
                async for output in llm.generate(prompt, GREEDY, mode="final"):
                    last = output
                return list(last.outputs[0].token_ids)

            async def embed(prompt: list[int]) -> NDArray[np.float32]:
                return (await llm.embed(prompt, PoolingParams(normalize=False))).embedding

            found = await asyncio.gather(*map(generate, PROMPTS), *map(embed, PROMPTS), *map(embed, PROMPTS))
            return found[: len(PROMPTS)], found[len(PROMPTS) :]

    generated, embedded = asyncio.run(both())
    assert generated == tokens
    np.testing.assert_allclose(np.stack(embedded), np.concatenate([expected, expected]), rtol=1e-3, atol=1e-4)
