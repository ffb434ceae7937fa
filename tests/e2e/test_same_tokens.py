"""Greedy output does not depend on how the engine is set up: the same tokens for every combination."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from vcore import LLM, SamplingParams

BLOCK_SIZES = (1, 7, 16, 64)
CHUNK_SIZES = (5, 64, 2048)
PARAMS = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, large enough in its logits' gaps that rounding does not decide."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=211,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    return folder


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Twelve prompts, some with a long beginning in common, one of them twice."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda count: torch.randint(0, 211, (count,), generator=generator).tolist()  # noqa: E731
    shared = draw(70)
    own = [draw(length) for length in (1, 2, 17, 33, 64, 100)]
    return [*own, *(shared + draw(length) for length in (1, 5, 16, 40)), shared, shared]


def engine(folder: Path, **tree: object) -> LLM:
    return LLM(model=str(folder), config={"model": {"skip_tokenizer": True}, "runtime": {"device": "cpu"}, **tree})


def tokens(llm: LLM, prompts: list[list[int]]) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(prompts, PARAMS, use_tqdm=False)]


@pytest.fixture(scope="module")
def alone(tiny_llama: Path, prompts: list[list[int]]) -> list[list[int]]:
    """Each prompt by itself, as transformers generates it."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    answers = []
    for ids in prompts:
        output = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=PARAMS.max_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
        answers.append(output[0, len(ids) :].tolist())
    return answers


@pytest.mark.parametrize(
    ("block_size", "chunk", "prefix_caching"), list(itertools.product(BLOCK_SIZES, CHUNK_SIZES, (True, False)))
)
def test_block_chunk_and_prefix_cache(
    tiny_llama: Path,
    prompts: list[list[int]],
    alone: list[list[int]],
    block_size: int,
    chunk: int,
    prefix_caching: bool,
) -> None:
    with engine(
        tiny_llama,
        cache={"block_size": block_size, "num_blocks": 4000 // block_size + 200, "prefix_caching": prefix_caching},
        scheduler={"max_num_batched_tokens": chunk, "max_num_seqs": min(chunk, 8)},
    ) as llm:
        assert tokens(llm, prompts) == alone
        again = llm.generate(prompts, PARAMS, use_tqdm=False)
    assert [output.outputs[0].token_ids for output in again] == alone
    hits = sum(output.num_cached_tokens for output in again)
    assert (hits > 0) is prefix_caching


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("block_size", [1, 16])
@pytest.mark.parametrize("prefix_caching", [True, False])
def test_forced_preemption(
    tiny_llama: Path,
    prompts: list[list[int]],
    alone: list[list[int]],
    policy: str,
    block_size: int,
    prefix_caching: bool,
) -> None:
    """So few blocks that requests push each other out again and again."""
    num_blocks = 176 // block_size + 2
    with engine(
        tiny_llama,
        cache={"block_size": block_size, "num_blocks": num_blocks, "prefix_caching": prefix_caching},
        scheduler={"policy": policy, "max_num_batched_tokens": 64, "max_num_seqs": 12},
    ) as llm:
        outputs = llm.generate(prompts, PARAMS, use_tqdm=False)
    assert [output.outputs[0].token_ids for output in outputs] == alone
    assert sum(output.metrics.num_preemptions for output in outputs if output.metrics) > 0


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_batch_composition(tiny_llama: Path, prompts: list[list[int]], alone: list[list[int]], size: int) -> None:
    with engine(tiny_llama, cache={"num_blocks": 300}, scheduler={"max_num_seqs": size}) as llm:
        order = list(range(len(prompts)))[::-1]
        answers = [tokens(llm, [prompts[i] for i in order[at : at + size]]) for at in range(0, len(order), size)]
    assert [answer for batch in answers for answer in batch] == [alone[i] for i in order]


@pytest.mark.parametrize("eviction", ["lru", "fifo"])
def test_eviction_under_pressure(
    tiny_llama: Path, prompts: list[list[int]], alone: list[list[int]], eviction: str
) -> None:
    """A cache that turns over many times between two rounds of the same prompts."""
    with engine(tiny_llama, cache={"num_blocks": 24, "block_size": 16, "eviction": eviction}) as llm:
        for _ in range(3):
            assert tokens(llm, prompts) == alone
