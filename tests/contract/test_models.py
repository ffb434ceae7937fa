"""Every model plugin against transformers: logits of whole prompts, chunks and decoding in mixed batches.

Models are tiny and random. To add an architecture, add cases to `CASES`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from vcore_backends.torch_sdpa.backend import TorchSDPABackend

from vcore.errors import WeightsError
from vcore.interfaces.hf_config import HFConfig
from vcore.plugins.specs import ModelSpec
from vcore.testing.memory_checkpoint import MemoryCheckpoint
from vcore.testing.model_driver import ModelDriver
from vcore.testing.thread_collective import ThreadCollective

VOCAB_SIZE = 61
TOLERANCE = 1e-4
TRAINED = 64


@dataclass(frozen=True)
class Case:
    """A tiny model: what differs from the common configuration of its type."""

    name: str
    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    max_model_len: int = TRAINED


def _rope(rope_type: str, **numbers: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10_000.0, **numbers}}


_GEMMA: dict[str, Any] = {"head_dim": 8, "num_hidden_layers": 3, "query_pre_attn_scalar": 5, "sliding_window": 8}
_GEMMA3_ROPE = {
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 100_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1_000.0},
    }
}
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}

CASES = [
    Case("gemma", "gemma", {"head_dim": 20}),
    Case("gemma2", "gemma2", _GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}),
    Case("gemma3", "gemma3_text", _GEMMA | _GEMMA3_ROPE | {"sliding_window_pattern": 2}),
    Case("gemma3-untied", "gemma3_text", _GEMMA | {"tie_word_embeddings": False, "attention_bias": True}),
    Case("llama-plain", "llama"),
    Case("llama-theta", "llama", _rope("default") | {"rms_norm_eps": 1e-3}),
    Case("llama-tied", "llama", {"tie_word_embeddings": True}),
    Case("llama-one-head-per-group", "llama", {"num_key_value_heads": 6}),
    Case("llama-one-kv-head", "llama", {"num_key_value_heads": 1}),
    Case("llama-head-dim", "llama", {"head_dim": 20}),
    Case("llama-biases", "llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    Case("llama-linear", "llama", _rope("linear", factor=3.0)),
    Case("llama-dynamic", "llama", _rope("dynamic", factor=4.0)),
    Case("llama-llama3", "llama", _rope("llama3", factor=8.0, **_LLAMA3)),
    Case("llama-yarn", "llama", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
]
BY_NAME = {case.name: case for case in CASES}

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": TRAINED,
}


def _model_specs() -> list[ModelSpec]:
    points = [point for point in entry_points(group="vcore") if point.module.startswith("vcore_model_zoo.")]
    modules = [point.load() for point in points]
    return [spec for module in modules if hasattr(module, "vcore_models") for spec in module.vcore_models()]


class Pair:
    """The reference, and what ours is built from."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        config = AutoConfig.for_model(case.model_type, **(_COMMON | case.config))
        self.reference = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            # Large enough that every weight matters to the logits, biases and norms included.
            for weight in self.reference.parameters():
                weight.normal_(0, 0.3)
        self.architecture = type(self.reference).__name__
        self.config = HFConfig(config.to_dict())
        self.max_model_len = case.max_model_len

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(self.reference.state_dict())

    def model_class(self) -> Any:
        (spec,) = [spec for spec in _model_specs() if self.architecture in spec.architectures]
        assert isinstance(spec.load, str)
        return resolve_name(spec.load)

    def driver(self, *, model: Any = None, tensors: dict[str, torch.Tensor] | None = None, **keywords: Any):
        return ModelDriver(
            model or self.model_class(),
            self.config,
            MemoryCheckpoint(self.tensors if tensors is None else tensors),
            attention=TorchSDPABackend,
            max_model_len=self.max_model_len,
            **keywords,
        )

    @torch.inference_mode()
    def expected(self, token_ids: list[int]) -> torch.Tensor:
        """Logits of one whole prompt: [num_tokens, vocab_size]."""
        return self.reference(torch.tensor([token_ids])).logits[0]


def _prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB_SIZE, (length,), generator=generator).tolist()


def _close(logits: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.std() > 0.5  # or a difference would not show
    torch.testing.assert_close(logits, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def test_every_model_plugin_has_cases():
    covered = {Pair(case).architecture for case in {case.model_type: case for case in CASES}.values()}
    for spec in _model_specs():
        assert covered & set(spec.architectures), f"{spec.name} serves none of {covered}"


def test_a_whole_prompt(pair: Pair):
    prompt = _prompt(40)
    _close(pair.driver().step({"a": prompt})["a"], pair.expected(prompt))


def test_chunks_and_decoding_in_mixed_batches(pair: Pair):
    driver = pair.driver(block_size=4)
    prompts = {name: _prompt(length, seed) for seed, (name, length) in enumerate({"a": 30, "b": 23, "c": 9}.items())}
    steps = [
        {"a": 12, "b": 1},
        {"a": 1, "b": 10, "c": 4},
        {"c": 1, "a": 1, "b": 8},
        {"a": 9, "c": 2, "b": 1},
        {"a": 7, "b": 3, "c": 2},
    ]
    done = dict.fromkeys(prompts, 0)
    got: dict[str, list[torch.Tensor]] = {name: [] for name in prompts}
    for step in steps:
        tokens = {name: prompts[name][done[name] : done[name] + count] for name, count in step.items()}
        for name, logits in driver.step(tokens).items():
            got[name].append(logits)
            done[name] += step[name]
    assert done == {name: len(prompt) for name, prompt in prompts.items()}
    for name, prompt in prompts.items():
        _close(torch.cat(got[name]), pair.expected(prompt))


@pytest.mark.parametrize("tp_size", [2, 3, 6])
def test_several_ranks_give_what_one_gives(tp_size: int):
    pair = Pair(Case("split", "llama", {"num_key_value_heads": 3 if tp_size == 3 else 2, "intermediate_size": 60}))
    prompt = _prompt(20)

    def run_rank(rank: int, collective: ThreadCollective) -> torch.Tensor:
        driver = pair.driver(tp_rank=rank, tp_size=tp_size, collective=collective)
        return torch.cat([driver.step({"a": chunk})["a"] for chunk in (prompt[:12], prompt[12:])])

    for logits in ThreadCollective.run(tp_size, run_rank):
        _close(logits, pair.expected(prompt))


def test_the_cache_has_the_shape_that_the_model_states(pair: Pair):
    driver = pair.driver(block_size=8, num_blocks=10)
    config = pair.config
    head_dim = config.get("head_dim") or config.hidden_size // config.num_attention_heads
    assert len(driver.layer_caches) == config.num_hidden_layers
    for cache in driver.layer_caches:
        assert cache.shape[1:] == (2, 8, config.num_key_value_heads, head_dim)


def test_each_missing_tensor_is_named(pair: Pair):
    tied = {"lm_head.weight"} if pair.config.get("tie_word_embeddings") else set()
    for name in set(pair.tensors) - tied:
        tensors = {other: tensor for other, tensor in pair.tensors.items() if other != name}
        with pytest.raises(WeightsError, match=f"1 missing: {name}"):
            pair.driver(tensors=tensors)


def test_a_surplus_tensor_is_named(pair: Pair):
    with pytest.raises(WeightsError, match=r"1 surplus: model.layers.9.mlp.up_proj.weight\."):
        pair.driver(tensors=pair.tensors | {"model.layers.9.mlp.up_proj.weight": torch.zeros(80, 48)})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_stays_near(dtype: torch.dtype):
    pair = Pair(BY_NAME["llama-biases"])
    prompt = _prompt(30)
    logits = pair.driver(dtype=dtype).step({"a": prompt})["a"]
    assert logits.dtype == dtype
    assert torch.cosine_similarity(logits.float(), pair.expected(prompt)).min() > 0.99


@pytest.mark.parametrize("length", [TRAINED + 1, 100])
def test_dynamic_scaling_beyond_the_trained_length(length: int):
    """Whole prompts of `max_model_len` tokens are as in transformers, and so is every chunking of them."""
    case = Case("llama-dynamic", "llama", BY_NAME["llama-dynamic"].config, max_model_len=length)
    pair, prompt = Pair(case), _prompt(length)
    expected = pair.expected(prompt)
    driver = pair.driver()
    _close(driver.step({"whole": prompt})["whole"], expected)
    chunks = [driver.step({"chunked": chunk})["chunked"] for chunk in (prompt[:50], prompt[50:-1], prompt[-1:])]
    _close(torch.cat(chunks), expected)


@pytest.mark.parametrize(
    "stacked",
    [
        {"gate_up_proj": ("up_proj", "gate_proj")},
        {"qkv_proj": ("q_proj", "v_proj", "k_proj")},
    ],
    ids=["gate-up", "key-value"],
)
def test_the_comparison_sees_a_wrong_mapping(stacked: dict[str, tuple[str, ...]]):
    pair = Pair(BY_NAME["llama-plain"])
    right = pair.model_class()

    class Wrong(right):
        weight_map = type(right.weight_map)(stacked=right.weight_map.stacked | stacked, rename=right.weight_map.rename)

    prompt = _prompt(20)
    difference = pair.driver(model=Wrong).step({"a": prompt})["a"] - pair.expected(prompt)
    assert difference.abs().max() > 100 * TOLERANCE
