"""Routed and shared experts: against a loop, over ranks, loaded expert by expert, refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vcore.errors import ConfigError, UnsupportedModelError, WeightsError
from vcore.interfaces.model import BuildContext
from vcore.layers import (
    FusedMoE,
    MoEBlock,
    NormStyle,
    Routing,
    SharedExperts,
    SigmoidRouting,
    SoftmaxRouting,
    WeightMap,
    load_weights,
)
from vcore.testing.memory_checkpoint import MemoryCheckpoint
from vcore.testing.thread_collective import ThreadCollective

HIDDEN, INTERMEDIATE, SHARED, NUM_EXPERTS, TOP_K = 10, 12, 8, 5, 2
EPS = 1e-5
MAP = WeightMap(
    stacked={
        "gate_up_experts": ("{expert}.gate_proj", "{expert}.up_proj"),
        "down_experts": ("{expert}.down_proj",),
        "gate_up_proj": ("gate_proj", "up_proj"),
    },
    rename={"experts.routing.": "gate."},
)
Tensors = dict[str, torch.Tensor]


def tensors_of_experts() -> Tensors:
    found = {}
    for expert in range(NUM_EXPERTS):
        for name in ("gate_proj", "up_proj"):
            found[f"experts.{expert}.{name}.weight"] = torch.randn(INTERMEDIATE, HIDDEN)
        found[f"experts.{expert}.down_proj.weight"] = torch.randn(HIDDEN, INTERMEDIATE)
    return found


def tensors_of_shared() -> Tensors:
    return {
        "shared_experts.gate_proj.weight": torch.randn(SHARED, HIDDEN),
        "shared_experts.up_proj.weight": torch.randn(SHARED, HIDDEN),
        "shared_experts.down_proj.weight": torch.randn(HIDDEN, SHARED),
    }


def tensors_of_block() -> Tensors:
    return {
        "norm.weight": torch.rand(HIDDEN) + 0.5,
        "gate.weight": torch.randn(NUM_EXPERTS, HIDDEN),
        "shared_expert_gate.weight": torch.randn(1, HIDDEN),
        **tensors_of_experts(),
        **tensors_of_shared(),
    }


def build_block(context: BuildContext, routing: Routing | None = None, **keywords: Any) -> MoEBlock:
    settings = {"norms": NormStyle(eps=EPS), "shared_intermediate_size": SHARED, "shared_gate": True} | keywords
    return MoEBlock(
        context,
        hidden_size=HIDDEN,
        num_experts=NUM_EXPERTS,
        intermediate_size=INTERMEDIATE,
        routing=routing or SoftmaxRouting(TOP_K),
        **settings,
    )


def load(module: nn.Module, tensors: Tensors) -> Any:
    load_weights(module, MemoryCheckpoint(tensors), MAP)
    return module


def network(tensors: Tensors, prefix: str, x: torch.Tensor) -> torch.Tensor:
    gate, up, down = (tensors[f"{prefix}.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return down @ (nn.functional.silu(gate @ x) * (up @ x))


def naive(tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
    """DeepSeekMoE (arXiv:2401.06066, equations 3 to 5), and the gate of the shared expert; token after token."""
    results = []
    for token in x:
        scores = (tensors["gate.weight"] @ token).softmax(-1)
        result = sum(scores[e] * network(tensors, f"experts.{e}", token) for e in scores.topk(TOP_K).indices.tolist())
        if "shared_experts.up_proj.weight" in tensors:
            shared = network(tensors, "shared_experts", token)
            if "shared_expert_gate.weight" in tensors:
                shared = shared * (tensors["shared_expert_gate.weight"] @ token).sigmoid()
            result = result + shared
        results.append(result)
    return torch.stack(results)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_block_against_a_loop(build_context: Callable[..., BuildContext]):
    tensors = tensors_of_block()
    block = load(build_block(build_context()), tensors)
    x, residual = torch.randn(9, HIDDEN), torch.randn(9, HIDDEN)
    added, stream = block(x, residual)
    torch.testing.assert_close(stream, x + residual)
    normed = stream * (stream.square().mean(-1, keepdim=True) + EPS).rsqrt() * tensors["norm.weight"]
    close(added, naive(tensors, normed))


@pytest.mark.parametrize("num_tokens", [0, 1, 4])
def test_any_number_of_tokens(build_context: Callable[..., BuildContext], num_tokens: int):
    block = load(build_block(build_context()), tensors_of_block())
    added, stream = block(torch.randn(num_tokens, HIDDEN), None)
    assert added.shape == stream.shape == (num_tokens, HIDDEN)


@pytest.mark.parametrize(
    ("keywords", "absent"),
    [
        ({"shared_gate": False}, ["shared_expert_gate"]),
        ({"shared_intermediate_size": None}, ["shared_expert_gate", "shared_experts"]),
        ({"norms": NormStyle(eps=EPS, before=False)}, ["norm"]),
    ],
    ids=["shared experts without a gate", "no shared experts", "no norm"],
)
def test_what_is_not_asked_for(build_context: Callable[..., BuildContext], keywords: dict[str, Any], absent: list[str]):
    every = tensors_of_block()
    tensors = {name: tensor for name, tensor in every.items() if name.split(".")[0] not in absent}
    block = load(build_block(build_context(), **keywords), tensors)
    x = torch.randn(6, HIDDEN)
    close(block.transform(x), naive(tensors, x))


def test_a_norm_behind(build_context: Callable[..., BuildContext]):
    tensors = tensors_of_block()
    tensors["post_norm.weight"] = tensors.pop("norm.weight")
    block = load(build_block(build_context(), norms=NormStyle(eps=EPS, before=False, after=True)), tensors)
    x = torch.randn(6, HIDDEN)
    added, stream = block(x, None)
    torch.testing.assert_close(stream, x)
    inner = naive(tensors, x)
    close(added, inner * (inner.square().mean(-1, keepdim=True) + EPS).rsqrt() * tensors["post_norm.weight"])


class Counting:
    """A collective that counts what goes through it."""

    def __init__(self, collective: ThreadCollective) -> None:
        self._collective = collective
        self.num_reductions = 0

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        self.num_reductions += 1
        return self._collective.all_reduce(tensor)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("tp_size", [2, 4])
def test_over_ranks_with_one_exchange(build_context: Callable[..., BuildContext], tp_size: int):
    tensors, x = tensors_of_block(), torch.randn(9, HIDDEN)
    expected = load(build_block(build_context()), tensors).transform(x)

    def run_rank(rank: int, collective: ThreadCollective) -> torch.Tensor:
        counting = Counting(collective)
        context = build_context(tp_rank=rank, tp_size=tp_size, collective=counting)
        block = build_block(context)
        assert block.experts.gate_up_experts.weight.shape == (NUM_EXPERTS, 2 * INTERMEDIATE // tp_size, HIDDEN)
        assert block.experts.down_experts.weight.shape == (NUM_EXPERTS, HIDDEN, INTERMEDIATE // tp_size)
        result = load(block, tensors).transform(x)
        assert counting.num_reductions == 1
        return result

    for result in ThreadCollective.run(tp_size, run_rank):
        close(result, expected)


def test_ranks_that_do_not_divide_an_expert(build_context: Callable[..., BuildContext]):
    with pytest.raises(ConfigError, match="does not divide this model's 12 intermediate features of an expert"):
        build_block(build_context(tp_size=5, collective=object()))


def test_each_expert_of_a_rank_reads_its_slices_alone(build_context: Callable[..., BuildContext]):
    asked: list[tuple[str, object]] = []

    class Watched(MemoryCheckpoint):
        def read(self, name, shape, index=None):
            asked.append((name, index))
            return super().read(name, shape, index)

    context = build_context(tp_rank=1, tp_size=2, collective=object())
    experts = FusedMoE(
        context,
        num_experts=NUM_EXPERTS,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        routing=SoftmaxRouting(TOP_K),
    )
    tensors = {name.removeprefix("experts."): tensor for name, tensor in tensors_of_experts().items()}
    load_weights(experts, Watched(tensors), MAP)
    rows, columns = slice(6, 12), slice(None)
    assert sorted(asked, key=lambda one: one[0]) == [
        (f"{expert}.{name}.weight", (columns, rows) if name == "down_proj" else (rows, columns))
        for expert in range(NUM_EXPERTS)
        for name in ("down_proj", "gate_proj", "up_proj")
    ]


def test_missing_and_surplus_experts_are_named(build_context: Callable[..., BuildContext]):
    tensors = tensors_of_block()
    surplus = {"experts.5.up_proj.weight": torch.zeros(INTERMEDIATE, HIDDEN)}
    with pytest.raises(WeightsError, match=r"1 surplus: experts\.5\.up_proj\.weight"):
        load(build_block(build_context()), tensors | surplus)
    del tensors["experts.3.down_proj.weight"]
    with pytest.raises(WeightsError, match=r"1 missing: experts\.3\.down_proj\.weight"):
        load(build_block(build_context()), tensors)


@pytest.mark.parametrize(
    ("stacked", "message"),
    [
        ({"down_experts": ("0.down_proj",)}, "4 surplus: experts.1.down_proj.weight"),
        ({"down_experts": ("{expert}.down_proj", "{expert}.up_proj")}, "joins 'down_experts' from 2 tensors"),
        ({"gate_up_experts": ("{expert}.gate_proj",)}, "joins 'gate_up_experts' from 1 tensors.*has 2 parts"),
    ],
    ids=["without a template", "too many names", "too few names"],
)
def test_a_broken_mapping_of_experts(build_context: Callable[..., BuildContext], stacked, message: str):
    wrong = WeightMap(stacked={**MAP.stacked, **stacked}, rename=MAP.rename)
    with pytest.raises(WeightsError, match=message):
        load_weights(build_block(build_context()), MemoryCheckpoint(tensors_of_block()), wrong)


def test_unmapped_experts_are_not_found(build_context: Callable[..., BuildContext]):
    unmapped = WeightMap(stacked={"gate_up_proj": ("gate_proj", "up_proj")})
    with pytest.raises(WeightsError, match=r"gate_up_experts"):
        load_weights(build_block(build_context()), MemoryCheckpoint(tensors_of_block()), unmapped)


def test_loaded_experts_are_packed_where_that_is_faster(build_context: Callable[..., BuildContext]):
    block = build_block(build_context())
    size = sum(weight.numel() for weight in block.parameters())
    load(block, tensors_of_block())
    assert sum(weight.numel() for weight in block.parameters()) == size  # nothing is kept twice
    matrices = block.experts.gate_up_experts.matrices
    if block.gate.weight.is_mkldnn:  # this build of torch can
        assert isinstance(matrices, tuple)
        assert all(matrix.is_mkldnn for matrix in matrices)
        assert block.experts.gate_up_experts.weight is None
    bfloat16 = load(build_block(build_context(dtype=torch.bfloat16)), tensors_of_block())
    assert bfloat16.experts.gate_up_experts.matrices.shape == (NUM_EXPERTS, 2 * INTERMEDIATE, HIDDEN)


def test_where_nothing_can_be_packed(build_context: Callable[..., BuildContext], monkeypatch: pytest.MonkeyPatch):
    tensors, x = tensors_of_block(), torch.randn(6, HIDDEN)
    packed = load(build_block(build_context()), tensors).transform(x)
    monkeypatch.setattr("vcore.layers.moe.packed", lambda weight: weight)
    block = load(build_block(build_context()), tensors)
    assert isinstance(block.experts.gate_up_experts.matrices, nn.Parameter)
    close(block.transform(x), packed)


def test_a_router_in_float32(build_context: Callable[..., BuildContext]):
    seen: list[torch.Tensor] = []

    class Watching(SoftmaxRouting):
        def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(logits)
            return super().forward(logits)

    tensors, x = tensors_of_block(), torch.randn(6, HIDDEN).to(torch.bfloat16)
    for dtype in (None, torch.float32):
        context = build_context(dtype=torch.bfloat16)
        result = load(build_block(context, Watching(TOP_K), router_dtype=dtype), tensors).transform(x)
        assert result.dtype == torch.bfloat16
    assert [logits.dtype for logits in seen] == [torch.bfloat16, torch.float32]
    close(seen[1], x.float() @ tensors["gate.weight"].T)


def test_a_routing_brings_its_own_parameters(build_context: Callable[..., BuildContext]):
    context = build_context()
    routing = SigmoidRouting(context, num_experts=NUM_EXPERTS, top_k=TOP_K)
    bias = torch.tensor([0.0, 9.0, 0.0, 9.0, 0.0])
    load(build_block(context, routing), tensors_of_block() | {"gate.e_score_correction_bias": bias})
    assert torch.equal(routing.e_score_correction_bias, bias)
    _, expert_ids = routing(torch.randn(4, NUM_EXPERTS))
    assert {tuple(sorted(row)) for row in expert_ids.tolist()} == {(1, 3)}


def test_uniform_routing_instead_of_the_models_own(build_context: Callable[..., BuildContext]):
    """The checkpoint's tensors are loaded all the same."""
    context = build_context(moe_routing="uniform")
    routing = SigmoidRouting(context, num_experts=NUM_EXPERTS, top_k=1)
    tensors = tensors_of_block() | {"gate.e_score_correction_bias": torch.tensor([9.0, 0, 0, 0, 0])}
    block = load(build_block(context, routing, shared_intermediate_size=None), _without_shared(tensors))
    x = torch.randn(200, HIDDEN)
    result = block.transform(x)
    close(result, block.transform(x))
    by_expert = [
        torch.stack([network(tensors, f"experts.{expert}", token) for token in x]) for expert in range(NUM_EXPERTS)
    ]
    chosen = torch.stack([(result - one).abs().amax(1) < 1e-3 for one in by_expert])  # [num_experts, num_tokens]
    assert (chosen.sum(0) == 1).all()
    assert chosen.sum(1).min() > 20  # of 40 each, the bias notwithstanding


def _without_shared(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if "shared" not in name}


def test_experts_that_cannot_be(build_context: Callable[..., BuildContext]):
    with pytest.raises(UnsupportedModelError, match="sends each token to 6 of 5 experts"):
        build_block(build_context(), SoftmaxRouting(6))
    with pytest.raises(UnsupportedModelError, match="activation 'relu7'"):
        build_block(build_context(), activation="relu7")
    with pytest.raises(UnsupportedModelError, match="activation 'relu7'"):
        SharedExperts(build_context(), HIDDEN, SHARED, "relu7")


def test_another_activation(build_context: Callable[..., BuildContext]):
    tensors, x = tensors_of_block(), torch.randn(6, HIDDEN)
    gelu = load(build_block(build_context(), activation="gelu_pytorch_tanh"), tensors).transform(x)
    assert not torch.allclose(gelu, naive(tensors, x), atol=1e-2)
