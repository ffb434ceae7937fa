"""`MLAAttention` against its equations, in every form, chunking and splitting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from vcore_backends.torch_sdpa.backend import TorchSDPABackend

import vcore.layers.latent_attention as latent_attention
import vcore.layers.latent_prefill as latent_prefill
from vcore.errors import ConfigError
from vcore.interfaces.attention import (
    AttentionBackendContext,
    AttentionContext,
    GroupContext,
    LatentAttentionLayer,
    LatentSpec,
)
from vcore.interfaces.model import BuildContext
from vcore.kv_cache.spec import LatentCacheSpec
from vcore.layers import MLAAttention, NormStyle, RotaryEmbedding, WeightMap, collect_kv_cache_specs, load_weights
from vcore.testing.attention_batch import build_attention_metadata
from vcore.testing.memory_checkpoint import MemoryCheckpoint
from vcore.testing.thread_collective import ThreadCollective

HIDDEN, HEADS, Q_RANK, RANK, NOPE, ROPE, V = 20, 4, 10, 12, 6, 4, 5
BLOCK_SIZE = 4
LENGTH = 40
WEIGHT_MAP = WeightMap(stacked={"q_kv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa")})


class RecordingLayer(LatentAttentionLayer):
    """Notes in which form it is called, and with how many queries and keys."""

    def __init__(self, inner: LatentAttentionLayer, calls: list[tuple[Any, ...]]) -> None:
        self.inner, self.calls = inner, calls

    def forward_absorbed(self, q, layer_cache, plan, out=None):
        self.calls.append(("absorbed", len(q)))
        return self.inner.forward_absorbed(q, layer_cache, plan, out)

    def forward_ragged(self, q, k, v, batch, *, return_lse=False):
        self.calls.append(("ragged", len(q), len(k), return_lse))
        return self.inner.forward_ragged(q, k, v, batch, return_lse=return_lse)


class RecordingBackend(TorchSDPABackend):
    """The backend that runs everywhere, with its calls on record."""

    def __init__(self) -> None:
        context = AttentionBackendContext(
            device=torch.device("cpu"),
            dtype=torch.float32,
            block_size=BLOCK_SIZE,
            max_num_seqs=8,
            max_num_batched_tokens=64,
            max_model_len=64,
        )
        super().__init__(options=None, context=context)
        self.calls: list[tuple[Any, ...]] = []
        self.specs: list[LatentSpec] = []

    def build_latent_layer(self, spec: LatentSpec) -> Any:
        self.specs.append(spec)
        return RecordingLayer(super().build_latent_layer(spec), self.calls)


def _tensors(q_lora: bool, bias: bool) -> dict[str, torch.Tensor]:
    """A checkpoint of one layer."""
    generator = torch.Generator().manual_seed(0)
    qk = HEADS * (NOPE + ROPE)
    shapes: dict[str, tuple[int, ...]] = {
        "norm.weight": (HIDDEN,),
        "kv_a_proj_with_mqa.weight": (RANK + ROPE, HIDDEN),
        "kv_a_layernorm.weight": (RANK,),
        "kv_b_proj.weight": (HEADS * (NOPE + V), RANK),
        "o_proj.weight": (HIDDEN, HEADS * V),
    }
    if q_lora:
        shapes |= {
            "q_a_proj.weight": (Q_RANK, HIDDEN),
            "q_a_layernorm.weight": (Q_RANK,),
            "q_b_proj.weight": (qk, Q_RANK),
        }
    else:
        shapes |= {"q_proj.weight": (qk, HIDDEN)}
    if bias:
        shapes |= {"kv_a_proj_with_mqa.bias": (RANK + ROPE,), "o_proj.bias": (HIDDEN,)}
        shapes |= {"q_a_proj.bias": (Q_RANK,)} if q_lora else {}
    return {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}


@dataclass
class Layer:
    """A loaded layer, its cache and one request's or several requests' progress."""

    block: MLAAttention
    rotary: RotaryEmbedding
    backend: RecordingBackend
    cache: torch.Tensor = field(default_factory=lambda: torch.full((64, BLOCK_SIZE, RANK + ROPE), float("nan")))

    def step(self, requests: Sequence[tuple[torch.Tensor, int, list[int]]], residual: bool = False) -> torch.Tensor:
        """What the block adds for ``hidden[start:]`` of each request of (hidden so far, start, block ids)."""
        new = [hidden[start:] for hidden, start, _ in requests]
        metadata = build_attention_metadata(
            [len(hidden) for hidden in new],
            [len(hidden) for hidden, _, _ in requests],
            [blocks for _, _, blocks in requests],
            block_size=BLOCK_SIZE,
        )
        positions = torch.cat([torch.arange(start, len(hidden)) for hidden, start, _ in requests])
        group = GroupContext(self.backend.plan(metadata), metadata)
        x = torch.cat(new)
        added, stream = self.block(
            x - 1 if residual else x,
            torch.ones_like(x) if residual else None,
            self.rotary(positions),
            AttentionContext([group], [self.cache]),
        )
        torch.testing.assert_close(stream, x)
        return added


@pytest.fixture
def build_layer(build_context: Callable[..., BuildContext]) -> Callable[..., Layer]:
    def build(*, q_lora: bool = True, bias: bool = False, context: dict[str, Any] | None = None, **keywords) -> Layer:
        backend = RecordingBackend()
        built = build_context({"max_position_embeddings": 64}, attention=backend, **(context or {}))
        block = MLAAttention(
            built,
            0,
            hidden_size=HIDDEN,
            num_heads=HEADS,
            q_lora_rank=Q_RANK if q_lora else None,
            kv_lora_rank=RANK,
            qk_nope_head_dim=NOPE,
            qk_rope_head_dim=ROPE,
            v_head_dim=V,
            norms=NormStyle(eps=1e-5),
            bias=bias,
            **keywords,
        )
        load_weights(block, MemoryCheckpoint(_tensors(q_lora, bias)), WEIGHT_MAP)
        return Layer(block, RotaryEmbedding(built, ROPE, interleaved=True), backend)

    return build


def _rms(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def _turn(x: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of [num_tokens, ..., ROPE] by complex numbers, pairs being neighbours."""
    angles = torch.arange(len(x), dtype=torch.float64)[:, None] * 10_000.0 ** (-torch.arange(0, ROPE, 2) / ROPE)
    angles = angles.view(len(x), *(1,) * (x.dim() - 2), ROPE // 2)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def _expected(hidden: torch.Tensor, q_lora: bool, bias: bool, scale: float | None = None) -> torch.Tensor:
    """What the block adds to a whole prompt, by the equations in the paper's order, in float64."""
    w = {name: tensor.double() for name, tensor in _tensors(q_lora, bias).items()}

    def project(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    h = _rms(hidden.double(), w["norm.weight"], 1e-5)
    q = project("q_b_proj", _rms(project("q_a_proj", h), w["q_a_layernorm.weight"], 1e-6)) if q_lora else None
    q = project("q_proj", h) if q is None else q
    q = q.unflatten(-1, (HEADS, NOPE + ROPE))
    compressed = project("kv_a_proj_with_mqa", h)
    c, k_rope = _rms(compressed[:, :RANK], w["kv_a_layernorm.weight"], 1e-6), _turn(compressed[:, RANK:])
    kv = project("kv_b_proj", c).unflatten(-1, (HEADS, NOPE + V))
    scores = torch.einsum("qhd,khd->hqk", q[..., :NOPE], kv[..., :NOPE])
    scores = scores + torch.einsum("qhd,kd->hqk", _turn(q[..., NOPE:]), k_rope)
    scores = scores * ((NOPE + ROPE) ** -0.5 if scale is None else scale)
    scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), float("-inf"))
    return project("o_proj", torch.einsum("hqk,khd->qhd", scores.softmax(-1), kv[..., NOPE:]).flatten(1))


def _close(added: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.std() > 0.1
    torch.testing.assert_close(added.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("q_lora", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_whole_prompt_follows_the_equations(build_layer: Callable[..., Layer], q_lora: bool, bias: bool):
    layer, hidden = build_layer(q_lora=q_lora, bias=bias), torch.randn(LENGTH, HIDDEN)
    added = layer.step([(hidden, 0, list(range(1, 11)))], residual=True)
    _close(added, _expected(hidden, q_lora, bias))


def test_the_scale_is_the_one_asked_for(build_layer: Callable[..., Layer]):
    layer, hidden = build_layer(scale=0.9), torch.randn(LENGTH, HIDDEN)
    _close(layer.step([(hidden, 0, list(range(1, 11)))]), _expected(hidden, True, False, 0.9))
    assert layer.backend.specs[0].scale == 0.9


FORMS = {"cheaper": None, "absorbed": True, "up-projected": False}


def _force(monkeypatch: pytest.MonkeyPatch, absorbed: bool | None) -> None:
    if absorbed is not None:
        monkeypatch.setattr(latent_prefill, "absorbed_is_cheaper", lambda *arguments: absorbed)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workspace_tokens", [1, 5, 8192])
@pytest.mark.parametrize("chunks", [[40], [1] * 8 + [32], [17, 1, 22], [30, 1, 1, 8], [3, 3, 3, 31]], ids=str)
def test_no_form_or_chunking_shows_in_the_result(
    build_layer: Callable[..., Layer],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    workspace_tokens: int,
    chunks: list[int],
):
    _force(monkeypatch, FORMS[form])
    layer, hidden = build_layer(workspace_tokens=workspace_tokens), torch.randn(LENGTH, HIDDEN)
    blocks = [7, 3, 1, 9, 2, 8, 5, 4, 6, 10]
    added, start = [], 0
    for chunk in chunks:
        added.append(layer.step([(hidden[: start + chunk], start, blocks)]))
        start += chunk
    _close(torch.cat(added), _expected(hidden, True, False))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workspace_tokens", [7, 8192])
def test_a_mixed_batch(
    build_layer: Callable[..., Layer], monkeypatch: pytest.MonkeyPatch, form: str, workspace_tokens: int
):
    """Decode rows, a fresh prompt, and chunks over cached contexts."""
    _force(monkeypatch, FORMS[form])
    layer = build_layer(workspace_tokens=workspace_tokens)
    # Tokens in all, and in the second step.
    requests = [(9, 1), (1, 1), (22, 1), (12, 12), (20, 3), (40, 9)]
    hidden = [torch.randn(length, HIDDEN) for length, _ in requests]
    blocks = [list(range(10 * row + 1, 10 * row + 11)) for row in range(6)]
    for (length, new), states, row_blocks in zip(requests, hidden, blocks, strict=True):
        if new < length:
            layer.step([(states[: length - new], 0, row_blocks)])
    rows = [
        (states, length - new, row_blocks)
        for (length, new), states, row_blocks in zip(requests, hidden, blocks, strict=True)
    ]
    added = torch.split(layer.step(rows), [new for _, new in requests])
    for (_, new), states, part in zip(requests, hidden, added, strict=True):
        _close(part, _expected(states, True, False)[-new:])


def _calls(layer: Layer, requests: Sequence[tuple[int, int]]) -> list[tuple[Any, ...]]:
    """What the backend is asked for in a step of these tokens in all, and in the step."""
    layer.cache.zero_()
    blocks = list(range(1, 17))
    layer.step([(torch.randn(length, HIDDEN), length - new, blocks) for length, new in requests])
    return layer.backend.calls


def test_decode_rows_are_absorbed(build_layer: Callable[..., Layer]):
    assert _calls(build_layer(), [(9, 1), (30, 1)]) == [("absorbed", 2)]


def test_fresh_prompts_are_projected_up_and_not_split(build_layer: Callable[..., Layer]):
    layer = build_layer(workspace_tokens=4)
    assert _calls(layer, [(9, 1), (30, 30)]) == [("ragged", 30, 30, False), ("absorbed", 1)]


def test_a_few_tokens_over_a_long_context_are_absorbed_with_the_whole_batch(build_layer: Callable[..., Layer]):
    assert _calls(build_layer(), [(9, 1), (50, 2)]) == [("absorbed", 3)]


def test_chunks_that_fit_are_one_call(build_layer: Callable[..., Layer]):
    assert _calls(build_layer(workspace_tokens=50), [(50, 30)]) == [("ragged", 30, 50, False)]


def test_chunks_that_do_not_fit_are_split(build_layer: Callable[..., Layer]):
    assert _calls(build_layer(workspace_tokens=16), [(50, 30)]) == [
        ("ragged", 30, 30, True),
        ("ragged", 30, 16, True),
        ("ragged", 30, 4, True),
    ]


def test_a_step_is_planned_once_for_all_layers(build_layer: Callable[..., Layer], monkeypatch: pytest.MonkeyPatch):
    plans = []

    def plan(*arguments: Any, **keywords: Any) -> Any:
        plans.append(latent_prefill.plan_prefill(*arguments, **keywords))
        return plans[-1]

    monkeypatch.setattr(latent_attention, "plan_prefill", plan)
    layer, other = build_layer(), build_layer()
    metadata = build_attention_metadata([8], [8], [[1, 2]], block_size=BLOCK_SIZE)
    for expected in (1, 2):
        group = GroupContext(layer.backend.plan(metadata), metadata)
        for block in (layer.block, other.block):
            block(torch.randn(8, HIDDEN), None, layer.rotary(torch.arange(8)), AttentionContext([group], [layer.cache]))
        assert len(plans) == expected


def test_the_cache_holds_the_normalised_latent_and_the_turned_key(build_layer: Callable[..., Layer]):
    layer, hidden = build_layer(), torch.randn(6, HIDDEN)
    assert collect_kv_cache_specs(layer.block) == [LatentCacheSpec(dtype=torch.float32, latent_dim=RANK + ROPE)]
    layer.step([(hidden, 0, [2, 1])])
    w = {name: tensor.double() for name, tensor in _tensors(True, False).items()}
    compressed = _rms(hidden.double(), w["norm.weight"], 1e-5) @ w["kv_a_proj_with_mqa.weight"].T
    rows = torch.cat((_rms(compressed[:, :RANK], w["kv_a_layernorm.weight"], 1e-6), _turn(compressed[:, RANK:])), -1)
    torch.testing.assert_close(layer.cache[2].double(), rows[:4])
    torch.testing.assert_close(layer.cache[1, :2].double(), rows[4:])
    assert layer.cache[1, 2:].isnan().all()


def test_the_up_projection_is_kept_once(build_layer: Callable[..., Layer]):
    projection = build_layer().block.kv_b_proj
    place = projection.weight.untyped_storage().data_ptr()
    for tensor in (projection._w_uk, projection._w_uv):
        assert tensor.untyped_storage().data_ptr() == place
    assert not projection.weight.is_mkldnn
    assert sum(tensor.numel() for tensor in projection.parameters()) == HEADS * (NOPE + V) * RANK


@pytest.mark.parametrize("q_lora", [False, True])
@pytest.mark.parametrize("workspace_tokens", [5, 8192])
def test_ranks_share_the_heads(build_layer: Callable[..., Layer], q_lora: bool, workspace_tokens: int):
    hidden = torch.randn(LENGTH, HIDDEN)

    def run_rank(rank: int, collective: ThreadCollective) -> torch.Tensor:
        layer = build_layer(
            q_lora=q_lora,
            bias=True,
            workspace_tokens=workspace_tokens,
            context={"tp_rank": rank, "tp_size": 2, "collective": collective},
        )
        assert layer.block.kv_b_proj.weight.shape == (HEADS // 2 * (NOPE + V), RANK)
        blocks = list(range(1, 11))
        chunks = [(0, 12), (12, 30), (30, 39), (39, 40)]
        return torch.cat([layer.step([(hidden[:stop], start, blocks)]) for start, stop in chunks])

    for added in ThreadCollective.run(2, run_rank):
        _close(added, _expected(hidden, q_lora, True))


def test_heads_that_the_ranks_do_not_divide_are_refused(build_layer: Callable[..., Layer]):
    class Unused:
        """A collective that is there, and not called."""

    with pytest.raises(ConfigError, match="3 does not divide this model's 4 attention heads"):
        build_layer(context={"tp_rank": 0, "tp_size": 3, "collective": Unused()})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_stays_near(build_layer: Callable[..., Layer], dtype: torch.dtype):
    layer, hidden = build_layer(context={"dtype": dtype}, workspace_tokens=8), torch.randn(LENGTH, HIDDEN)
    layer.cache = torch.zeros(64, BLOCK_SIZE, RANK + ROPE, dtype=dtype)
    blocks = list(range(1, 11))
    added = [layer.step([(hidden[:stop].to(dtype), start, blocks)]) for start, stop in ((0, 15), (15, 39), (39, 40))]
    joined = torch.cat(added)
    assert joined.dtype == dtype
    assert nn.functional.cosine_similarity(joined.double(), _expected(hidden, True, False)).min() > 0.99
