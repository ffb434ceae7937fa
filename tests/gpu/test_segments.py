"""Steps with prompts, replayed in segments around attention, against the same steps launched kernel by kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from vcore import LLM, EngineConfig, SamplingParams
from vcore.interfaces.attention import AttentionContext, GroupContext
from vcore.runner import forward_pass
from vcore.runner.recorder import GraphRecorder
from vcore.runner.segments import Segments, Step
from vcore.testing import build_attention_metadata

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
COMMON = {
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
LLAMA = {**COMMON, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
GEMMA2 = {
    **COMMON,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "sliding_window": 20,
    "query_pre_attn_scalar": 64,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "rope_theta": 10000.0,
}
DEEPSEEK = {
    **{key: value for key, value in COMMON.items() if key != "head_dim"},
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 4,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "rope_theta": 10000,
    "hidden_act": "silu",
}
PROMPTS = [[(7 * i + j) % 1000 for j in range(3 + 17 * i)] for i in range(13)]
LENGTHS = [40, 3, 17, 60, 9, 33, 21, 5, 50, 12, 28, 44, 1]
"""So there are decode rows beside chunks of later prompts: steps of many sizes."""


@contextmanager
def engine(folder: Path, config: dict[str, Any], backend: str, largest: int, **runtime: Any) -> Iterator[LLM]:
    (folder / "config.json").write_text(json.dumps(config))
    tree = {
        "model": {"path": str(folder), "load_format": "dummy", "skip_tokenizer": True, "dtype": "float32"},
        "runtime": {"device": "cuda:0", **runtime},
        "attention": {"backend": backend},
        "scheduler": {"max_num_seqs": 6, "max_num_batched_tokens": 100},
        "cache": {"num_blocks": 400},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward_pass, "worthwhile_tokens", lambda model: largest)
        with LLM(config=EngineConfig.model_validate(tree)) as llm:
            yield llm


def generate(llm: LLM) -> list[list[int]]:
    wanted = [SamplingParams(max_tokens=n, ignore_eos=True, detokenize=False, temperature=0.0) for n in LENGTHS]
    return [list(output.outputs[0].token_ids) for output in llm.generate(PROMPTS, wanted, use_tqdm=False)]


def segments_of(llm: LLM) -> Segments | None:
    return llm._engine.core._executor._runner._forward._segments  # the one way to see that they are used


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("config", "backend"),
    [(LLAMA, "triton_paged"), (GEMMA2, "triton_paged"), (DEEPSEEK, "torch_sdpa")],
    ids=["llama", "gemma2", "deepseek"],
)
def test_tokens_are_those_of_eager_steps(
    tmp_path: Path, config: dict[str, Any], backend: str, asynchronous: bool
) -> None:
    with engine(tmp_path, config, backend, 100, enforce_eager=True, async_scheduling=False) as llm:
        assert segments_of(llm) is None
        expected = generate(llm)
    with engine(tmp_path, config, backend, 100, async_scheduling=asynchronous) as llm:
        for _ in range(2):  # the second time from what was recorded, and from cached prefixes
            assert generate(llm) == expected
        segments = segments_of(llm)
        assert segments is not None
        assert len(segments._recordings) > 2


def test_larger_steps_are_launched_kernel_by_kernel(tmp_path: Path) -> None:
    with engine(tmp_path, LLAMA, "triton_paged", 32) as llm:
        generate(llm)
        segments = segments_of(llm)
        assert segments is not None
        assert segments._recordings.keys() <= {8, 16, 32}
        assert segments._recordings


def test_the_cache_leaves_room(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    config = {
        "model": {"path": str(tmp_path), "load_format": "dummy", "skip_tokenizer": True},
        "runtime": {"device": "cuda:0"},
        "attention": {"backend": "triton_paged"},
        "scheduler": {"max_num_batched_tokens": 512},
        "cache": {"memory_fraction": 0.9},
    }
    with LLM(config=EngineConfig.model_validate(config)) as llm:
        assert generate(llm)
        assert segments_of(llm)._recordings


def small(model: Any) -> Segments:
    return Segments(model, GraphRecorder(), (8, 16), (0,), num_groups=1, device=CUDA)


def step_of(values: list[int]) -> Step:
    metadata = build_attention_metadata([len(values)], [len(values)], [[1, 2]], block_size=16, device=CUDA)
    group = GroupContext(metadata, metadata)
    ids = torch.tensor(values, device=CUDA)
    return Step(ids, ids * 2, [group], AttentionContext([group], []))


def attend(attn: AttentionContext, out: torch.Tensor | None, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A stand-in for attention, of the step's plan: over tensors with strides, into memory that is given."""
    assert x.shape[0] == attn.layer_groups[0].plan.num_tokens
    return torch.add(x, y.cumsum(0), out=out)


def two_calls(input_ids: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
    both = torch.stack((input_ids, positions), 1).double().repeat_interleave(64, 1)  # [num_tokens, 128]
    first = attn.run(attend, both[:, :64], both[:, 64:]) * 3
    del both
    scratch = torch.full_like(first, float("nan"))  # takes what memory is free
    del scratch
    second = attn.run(attend, first[:, ::2], first[:, 1::2])
    return second + first[:, :32]


def expected_of(values: list[int]) -> torch.Tensor:
    step = step_of(values)
    return two_calls(step.input_ids, step.positions, step.attn)


def test_replays_follow_their_steps() -> None:
    segments = small(two_calls)
    for values in ([5, 3, 9], [1] * 16, [7, 7], list(range(12)), [4], [2] * 8, [9, 8, 7, 6, 5, 4, 3, 2, 1]):
        found = segments.run(step_of(values))
        assert found is not None
        assert torch.equal(found, expected_of(values))
    assert sorted(segments._recordings) == [8, 16]


def test_a_model_that_waits_for_the_device_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    def waits(input_ids: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> torch.Tensor:
        return two_calls(input_ids, positions, attn) * int(input_ids.sum())

    segments = small(waits)
    with caplog.at_level("WARNING", logger="vcore"):
        first = segments.run(step_of([1, 2, 3]))
    assert first is not None
    assert first.shape == (3, 32)  # computed, not recorded
    assert not segments.takes(1)
    assert len([record for record in caplog.records if "mixed batches" in record.message]) == 1
    assert torch.ones(3, device=CUDA).sum().item() == 3.0  # the device is as it was
    assert small(two_calls).run(step_of([1])) is not None


def test_memory_is_measured_by_recording() -> None:
    segments = small(two_calls)
    assert segments.measure(lambda count: step_of([1] * count)) >= 0
    assert list(segments._recordings) == [16, 8]  # the largest, whose memory the others use again, and the smallest


def test_an_alias_is_the_memory_and_keeps_none_of_it() -> None:
    recorder = GraphRecorder()
    base = torch.arange(60, dtype=torch.bfloat16, device=CUDA).view(5, 12)
    view = base[1:, 3:9:2]
    alias = recorder.alias(view)
    assert (alias.dtype, alias.shape, alias.stride(), alias.data_ptr()) == (
        view.dtype,
        view.shape,
        view.stride(),
        view.data_ptr(),
    )
    base.zero_()
    assert not alias.any()
    before = torch.cuda.memory_allocated()
    del base, view
    assert torch.cuda.memory_allocated() < before
    assert recorder.alias(torch.empty(0, 4, device=CUDA)).shape == (0, 4)
