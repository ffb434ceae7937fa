"""`ModelContract`: what every model plugin must pass, as tests that a class inherits.

    class TestQwen3(ModelContract):
        model_type = "qwen3"

    class TestQwen3WithBiases(ModelContract):
        model_type = "qwen3"
        overrides = {"attention_bias": True, "head_dim": 20}

Each class is one case: a tiny random model that transformers makes, saves and computes, and the plugin that serves its
architecture. Cases for every feature that a checkpoint's config can switch on are what makes it a proof. Needs pytest
and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from vcore.engine.llm import LLM
from vcore.engine.outline import MetaModel
from vcore.errors import WeightsError
from vcore.interfaces.model import Model
from vcore.ops.moe import fused_experts
from vcore.plugins import CatalogEntry
from vcore.pooling_params import PoolingParams
from vcore.sampling_params import SamplingParams
from vcore.testing.memory_checkpoint import MemoryCheckpoint
from vcore.testing.model_case import NUM_GREEDY, ModelCase
from vcore.testing.model_driver import ModelDriver
from vcore.testing.tape_recorder import TapeRecorder
from vcore.testing.thread_collective import ThreadCollective
from vcore.testing.tiny_checkpoint import TinyCheckpoint

__all__ = ["ModelContract"]

_CHUNKS: Sequence[Mapping[str, int]] = (
    {"a": 12, "b": 1},
    {"a": 1, "b": 10, "c": 4},
    {"c": 1, "a": 1, "b": 8},
    {"a": 9, "c": 2, "b": 1},
    {"a": 7, "b": 3, "c": 2},
)
"""Tokens of three requests in five steps: first and further chunks beside single tokens."""


class ModelContract(ModelCase):
    """One case. Subclass it in a test module, under a name that begins with ``Test``."""

    def test_the_plugin_is_found_and_builds_without_memory(
        self, entry: CatalogEntry, without_memory: MetaModel
    ) -> None:
        """By its architecture alone; `vcore models check` outlines it."""
        assert entry.ok
        assert {weight.device.type for weight in without_memory.model.parameters()} == {"meta"}

    @pytest.mark.parametrize("block_size", [4, 16])
    def test_a_whole_prompt(self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], block_size: int) -> None:
        prompt = tiny.prompt(40)
        self.close(driver(block_size=block_size).step({"a": prompt})["a"], tiny.logits(prompt))

    @pytest.mark.parametrize("block_size", [4, 16])
    def test_chunks_and_decoding_in_mixed_batches(
        self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], block_size: int
    ) -> None:
        self._check_mixed_batches(tiny, driver(block_size=block_size))

    def test_segments_give_the_same_bit_for_bit(
        self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Padded batches, the model recorded in pieces around attention, and the same computed each time anew."""
        recorder = TapeRecorder()
        monkeypatch.setattr("vcore.layers.moe.fused_experts", recorder.as_one(fused_experts))
        recorded, computed = driver(block_size=4), driver(block_size=4)
        recorded.record_segments(recorder, 16)
        for step in _CHUNKS:
            tokens = {name: tiny.prompt(count, seed=count) for name, count in step.items()}
            computed.record_segments(recorder, 16)
            found, expected = recorded.step(tokens), computed.step(tokens)
            for name in step:
                assert expected[name].isfinite().all()
                assert torch.equal(found[name], expected[name]), name
        recorded = driver(block_size=4)
        recorded.record_segments(recorder, 16)
        self._check_mixed_batches(tiny, recorded)

    def test_greedy_tokens_of_each_prompt_alone(
        self, engine: LLM, prompts: list[list[int]], greedy: list[list[int]]
    ) -> None:
        """As transformers' ``generate`` gives them, from a whole engine on the saved files."""
        for prompt, expected in zip(prompts, greedy, strict=True):
            engine.reset_prefix_cache()
            [output] = _generate(engine, [prompt])
            assert output.num_cached_tokens == 0
            assert output.outputs[0].token_ids == expected

    def test_embeddings_are_made_of_the_hidden_states_after_the_final_norm(
        self, engine: LLM, tiny: TinyCheckpoint, prompts: list[list[int]]
    ) -> None:
        """Their mean, in chunks and one batch, is that of what transformers' trunk returns."""
        outputs = engine.embed(prompts, PoolingParams(normalize=False), progress=False)
        for prompt, output in zip(prompts, outputs, strict=True):
            assert output.embedding is not None, output.error
            expected = tiny.hidden_states(prompt).mean(0)
            found = torch.from_numpy(output.embedding)
            torch.testing.assert_close(found, expected, rtol=self.tolerance, atol=self.tolerance)

    def test_windows_are_shorter_than_prompts(self, without_memory: MetaModel, prompts: list[list[int]]) -> None:
        """One that is longer would be tested by half; one as long as every request is none (`Attention`)."""
        longest = max(map(len, prompts))
        for kind in without_memory.outline.cache_kinds:
            if kind.window is not None:
                assert kind.window < longest, f"choose a window below {longest}"

    def test_greedy_tokens_in_a_mixed_batch_with_prefix_hits(
        self, engine: LLM, prompts: list[list[int]], greedy: list[list[int]]
    ) -> None:
        """Chunked prefill beside decoding, with beginnings of prompts taken from the cache."""
        engine.reset_prefix_cache()
        for _ in range(2):
            outputs = _generate(engine, prompts)
            assert [output.outputs[0].token_ids for output in outputs] == greedy
            assert any(output.num_cached_tokens > 0 for output in outputs)

    def test_a_wrong_weight_mapping_shows(
        self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], model: Callable[..., Model]
    ) -> None:
        """Every mistake changes the logits by far more than the tolerance, or is refused while loading."""
        prompt = tiny.prompt(20)
        shown = 0
        for mistake, wrong in self.wrong_models(model):
            try:
                logits = driver(model=wrong).step({"a": prompt})["a"]
            except WeightsError:
                continue  # the shapes told
            shown += 1
            assert (logits - tiny.logits(prompt)).abs().max() > 100 * self.tolerance, mistake
        assert shown, "every wrong mapping was refused; give wrong_models one that loads"

    def test_every_tensor_counts(self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver]) -> None:
        """Another tensor of the checkpoint gives other logits: none is read and forgotten."""
        prompt = tiny.prompt(24)
        right = driver().step({"a": prompt})["a"]
        for name, tensor in tiny.tensors.items():
            if name not in self.insensitive:
                other = driver(tensors={**tiny.tensors, name: tensor.roll(1, 0) + 0.3}).step({"a": prompt})["a"]
                assert (other - right).abs().max() > 10 * self.tolerance, name

    def test_a_missing_or_surplus_tensor_is_named(self, tiny: TinyCheckpoint, without_memory: MetaModel) -> None:
        built = without_memory.model
        for name in tiny.tensors:
            tensors = {other: tensor for other, tensor in tiny.tensors.items() if other != name}
            with pytest.raises(WeightsError) as caught:
                built.load_weights(MemoryCheckpoint(tensors))
            assert name in str(caught.value)
        with pytest.raises(WeightsError, match=r"model\.never_heard_of\.weight"):
            built.load_weights(MemoryCheckpoint({**tiny.tensors, "model.never_heard_of.weight": torch.zeros(1)}))

    def test_several_ranks_give_what_one_gives(self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver]) -> None:
        for size in self.tensor_parallel:

            def run_rank(rank: int, collective: ThreadCollective, size: int = size) -> None:
                self._check_mixed_batches(tiny, driver(tp_rank=rank, tp_size=size, collective=collective))

            ThreadCollective.run(size, run_rank)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_lower_precision_stays_near(
        self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], dtype: torch.dtype
    ) -> None:
        prompt = tiny.prompt(30)
        logits = driver(dtype=dtype).step({"a": prompt})["a"]
        assert logits.dtype == dtype
        assert torch.cosine_similarity(logits.float(), tiny.logits(prompt)).mean() > self.lower_precision

    def close(self, logits: torch.Tensor, expected: torch.Tensor) -> None:
        """Assert that logits, [num_tokens, vocab_size], are the reference's."""
        assert expected.std() > 0.5, "the reference's logits are so small that a difference would not show"
        torch.testing.assert_close(logits, expected, rtol=self.tolerance, atol=self.tolerance)

    def _check_mixed_batches(self, tiny: TinyCheckpoint, driver: ModelDriver) -> None:
        names = sorted({name for step in _CHUNKS for name in step})
        lengths = {name: sum(step.get(name, 0) for step in _CHUNKS) for name in names}
        prompts = {name: tiny.prompt(lengths[name], seed) for seed, name in enumerate(names)}
        done = dict.fromkeys(names, 0)
        got: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        for step in _CHUNKS:
            tokens = {name: prompts[name][done[name] : done[name] + count] for name, count in step.items()}
            for name, logits in driver.step(tokens).items():
                got[name].append(logits)
                done[name] += step[name]
        for name, prompt in prompts.items():
            self.close(torch.cat(got[name]), tiny.logits(prompt))


def _generate(engine: LLM, prompts: list[list[int]]) -> list[Any]:
    params = SamplingParams(temperature=0.0, max_tokens=NUM_GREEDY, ignore_eos=True)
    return list(engine.generate(prompts, params, use_tqdm=False))
