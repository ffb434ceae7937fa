"""`AsyncLLM` over the real model in a process of its own: the outputs are those of `LLM`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vcore import LLM, AsyncLLM, SamplingParams
from vcore.outputs import RequestOutput

CONFIG = {"cache": {"num_blocks": 4096}, "runtime": {"device": "cpu", "num_threads": 1}}


async def streamed(llm: AsyncLLM, prompt: str, params: SamplingParams) -> tuple[str, list[int], RequestOutput]:
    """The joined deltas, and the last of them."""
    text, token_ids = "", []
    async for output in llm.generate(prompt, params, mode="delta"):
        [sample] = output.outputs
        text += sample.text
        token_ids += sample.token_ids
    return text, token_ids, output


def test_streams_are_what_the_offline_engine_gives(smollm2: LLM, smollm2_path: Path, real_prompts: list[str]):
    greedy = SamplingParams(temperature=0.0, max_tokens=12)
    stopped = SamplingParams(temperature=0.0, max_tokens=24, stop=(".", "\n"))
    seeded = SamplingParams(seed=5, top_p=0.9, max_tokens=12)
    cases = [(prompt, params) for params in (greedy, stopped, seeded) for prompt in real_prompts[:4]]
    expected = smollm2.generate([prompt for prompt, _ in cases], [params for _, params in cases], progress=False)

    async def check() -> None:
        async with AsyncLLM(str(smollm2_path), config=CONFIG) as llm:
            results = await asyncio.gather(*(streamed(llm, *case) for case in cases))
            for (text, token_ids, last), whole in zip(results, expected, strict=True):
                sample = whole.outputs[0]
                assert (text, token_ids) == (sample.text, sample.token_ids)
                assert last.outputs[0].finish_reason == sample.finish_reason
                assert last.outputs[0].stop_reason == sample.stop_reason
                assert last.prompt_token_ids == whole.prompt_token_ids
            conversation = [{"role": "user", "content": "Say hello."}]
            chat = llm.render_chat(conversation)
            assert chat == smollm2.render_chat(conversation)
            stats = await llm.stats()
            assert (stats.running, stats.used_blocks) == (0, 0)

    asyncio.run(check())
