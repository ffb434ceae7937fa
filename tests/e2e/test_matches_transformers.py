"""Greedy output of the real model, token for token, and its logprobs, against transformers."""

from __future__ import annotations

import pytest
import torch

from vcore import LLM, SamplingParams

NUM_TOKENS = 64


@pytest.fixture(scope="module")
def expected(reference: torch.nn.Module, smollm2: LLM, real_prompts: list[str]) -> list[tuple[list[int], list[int]]]:
    """For each prompt its ids and the 64 that transformers' ``generate`` adds; padded on the left into one batch."""
    tokenizer = smollm2.get_tokenizer()
    prompts = [tokenizer.encode(prompt) for prompt in real_prompts]
    width = max(map(len, prompts))
    output = reference.generate(
        torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts]),
        attention_mask=torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]),
        do_sample=False,
        max_new_tokens=NUM_TOKENS,
        eos_token_id=None,
        pad_token_id=0,
    )
    return list(zip(prompts, output[:, width:].tolist(), strict=True))


def test_greedy_tokens_are_equal(smollm2: LLM, expected: list[tuple[list[int], list[int]]]) -> None:
    """All twenty at once, so that batching is part of what is tested."""
    params = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
    outputs = smollm2.generate([ids for ids, _ in expected], params, use_tqdm=False)
    assert [output.outputs[0].token_ids for output in outputs] == [tokens for _, tokens in expected]


def test_logprobs_agree(smollm2: LLM, reference: torch.nn.Module, expected: list[tuple[list[int], list[int]]]) -> None:
    """Of generated tokens, of the likeliest alternatives, and of the prompt."""
    params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True, logprobs=5, prompt_logprobs=3)
    prompts = expected[:4]
    for (ids, tokens), output in zip(
        prompts, smollm2.generate([ids for ids, _ in prompts], params, use_tqdm=False), strict=True
    ):
        with torch.no_grad():
            logits = reference(torch.tensor([ids + tokens[:16]])).logits[0].float()
        truth = torch.log_softmax(logits, dim=-1)
        generated = output.outputs[0].logprobs
        assert generated is not None
        assert len(generated) == 16
        for position, alternatives in enumerate(generated, start=len(ids) - 1):
            assert len(alternatives) in (5, 6)
            for token, logprob in alternatives.items():
                assert logprob.logprob == pytest.approx(truth[position, token].item(), abs=1e-4)
        assert output.prompt_logprobs is not None
        assert output.prompt_logprobs[0] is None
        assert len(output.prompt_logprobs) == len(ids)
        for position, alternatives in enumerate(output.prompt_logprobs[1:]):
            assert alternatives is not None
            assert ids[position + 1] in alternatives
            for token, logprob in alternatives.items():
                assert logprob.logprob == pytest.approx(truth[position, token].item(), abs=1e-4)
