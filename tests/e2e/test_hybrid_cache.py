"""Models whose layers see different spans: the same tokens however their caches are grouped, cut, shared and freed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vcore import LLM, SamplingParams
from vcore.config import load_config
from vcore.engine.build import Engine, build_engine
from vcore.engine.request import EngineRequest
from vcore.errors import CapacityError, ConfigError, RequestTooLargeError
from vcore.interfaces import AttentionContext, BuildContext, CheckpointReader, LayerSpec, Model
from vcore.kv_cache import KVCacheSpec
from vcore.layers import Attention, collect_kv_cache_specs
from vcore.plugins import ModelSpec
from vcore.runner import ModelRunner

VOCAB, HIDDEN, HEAD_DIM, LENGTH = 97, 24, 8, 320
PARAMS = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)

Windows = tuple[int | None, ...]
LAYOUTS: dict[str, Windows] = {
    "window": (9, 9),
    "hybrid": (6, None, 6, None),
    "one full in three": (20, 20, None),
    "three kinds": (3, None, 17),
    "windows of 1 and 30": (1, 30),
}


class HybridModel(Model):
    """Attention alone, with a window of its own in each layer, and weights that follow from a seed."""

    def __init__(self, *, options: None, context: BuildContext) -> None:
        super().__init__()
        config = context.config
        self.windows: list[int | None] = config["windows"]
        self.kv_heads: list[int] = config["kv_heads"]
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.place = nn.Embedding(LENGTH, HIDDEN)
        self.q = nn.ModuleList(nn.Linear(HIDDEN, 2 * HEAD_DIM) for _ in self.windows)
        self.kv = nn.ModuleList(nn.Linear(HIDDEN, 2 * heads * HEAD_DIM) for heads in self.kv_heads)
        self.o = nn.ModuleList(nn.Linear(2 * HEAD_DIM, HIDDEN) for _ in self.windows)
        self.head = nn.Linear(HIDDEN, VOCAB)
        self.attention = nn.ModuleList(
            Attention(context, layer, self.layer_spec(layer)) for layer in range(len(self.windows))
        )

    def layer_spec(self, layer: int) -> LayerSpec:
        return LayerSpec(
            num_heads=2,
            num_kv_heads=self.kv_heads[layer],
            head_dim=HEAD_DIM,
            scale=HEAD_DIM**-0.5,
            sliding_window=self.windows[layer],
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attn: AttentionContext,
        intermediate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.run(input_ids, positions, lambda layer, q, k, v: self.attention[layer](q, k, v, attn))

    def run(self, input_ids: torch.Tensor, positions: torch.Tensor, attend: Callable[..., torch.Tensor]) -> Any:
        x = self.embed(input_ids) + self.place(positions)
        for layer, heads in enumerate(self.kv_heads):
            normed = F.layer_norm(x, (HIDDEN,))
            q = self.q[layer](normed).unflatten(-1, (2, HEAD_DIM))
            k, v = self.kv[layer](normed).unflatten(-1, (2, heads, HEAD_DIM)).unbind(1)
            x = x + self.o[layer](attend(layer, q, k, v).flatten(1))
        return F.layer_norm(x, (HIDDEN,))

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.head(hidden_states)

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)

    def kv_cache_specs(self) -> Sequence[KVCacheSpec]:
        return collect_kv_cache_specs(self)

    def dense(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The layer's attention by its definition, without a cache."""
        distance = torch.arange(len(q))[:, None] - torch.arange(len(q))
        visible = (distance >= 0) & (distance < (self.windows[layer] or LENGTH))
        k, v = (x.repeat_interleave(2 // self.kv_heads[layer], 1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * HEAD_DIM**-0.5
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(~visible, float("-inf")).softmax(-1), v)

    @torch.inference_mode()
    def generate(self, prompt: list[int], count: int) -> list[int]:
        tokens = list(prompt)
        for _ in range(count):
            hidden = self.run(torch.tensor(tokens), torch.arange(len(tokens)), self.dense)
            tokens.append(int(self.head(hidden[-1]).argmax()))
        return tokens[len(prompt) :]


SPEC = ModelSpec(name="hybrid", load=HybridModel, api="1.0", architectures=("HybridModel",))


class NoAttention:
    """For a model that is only asked by `HybridModel.generate`."""

    def build_layer(self, spec: LayerSpec) -> None: ...


def model_config(windows: Windows, kv_heads: Sequence[int] | None = None) -> dict[str, Any]:
    return {
        "architectures": ["HybridModel"],
        "windows": list(windows),
        "kv_heads": list(kv_heads or [1] * len(windows)),
        "hidden_size": HIDDEN,
        "num_attention_heads": 2,
        "num_hidden_layers": len(windows),
        "vocab_size": VOCAB,
        "max_position_embeddings": LENGTH,
    }


@cache
def reference(windows: Windows, kv_heads: tuple[int, ...] | None, prompt: tuple[int, ...]) -> list[int]:
    config = model_config(windows, kv_heads)
    context = BuildContext(
        config=config,  # type: ignore[arg-type]
        dtype=torch.float32,
        device=torch.device("cpu"),
        attention=NoAttention(),  # type: ignore[arg-type]
        max_model_len=LENGTH,
    )
    model = HybridModel(options=None, context=context)
    model.load_weights(None)  # type: ignore[arg-type]
    return model.generate(list(prompt), PARAMS.max_tokens or 0)


def draw(count: int, seed: int) -> list[int]:
    return torch.randint(0, VOCAB, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


SHARED = draw(45, 0)
PROMPTS = [draw(length, length) for length in (1, 2, 17, 33, 80)]
PROMPTS += [SHARED + draw(length, 100 + length) for length in (1, 5, 16)]
PROMPTS += [SHARED, SHARED, SHARED[:20] + draw(3, 7)]


def expected(windows: Windows, prompts: list[list[int]] = PROMPTS) -> list[list[int]]:
    return [reference(windows, None, tuple(prompt)) for prompt in prompts]


def tree(folder: Path, windows: Windows, kv_heads: Sequence[int] | None = None, **sections: Any) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(model_config(windows, kv_heads)), encoding="utf-8")
    model = {"path": str(folder), "load_format": "dummy", "skip_tokenizer": True}
    return {"model": model, "attention": {"backend": "torch_sdpa"}, "runtime": {"device": "cpu"}, **sections}


def engine(folder: Path, windows: Windows, kv_heads: Sequence[int] | None = None, **sections: Any) -> Engine:
    return build_engine(load_config(tree(folder, windows, kv_heads, **sections)), plugins=[SPEC])


def generate(llm: LLM, prompts: list[list[int]] = PROMPTS) -> tuple[list[list[int]], int]:
    """Tokens, and how many of the prompts' were cached."""
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], PARAMS, progress=False)
    return [output.outputs[0].token_ids for output in outputs], sum(output.num_cached_tokens for output in outputs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block_size", [1, 7, 16])
@pytest.mark.parametrize(("chunk", "caching"), [(5, True), (2048, True), (13, False)])
def test_blocks_chunks_and_prefix_hits(tmp_path: Path, layout: str, block_size: int, chunk: int, caching: bool) -> None:
    windows = LAYOUTS[layout]
    config = {
        "cache": {"block_size": block_size, "num_blocks": 4000 // block_size + 400, "prefix_caching": caching},
        "scheduler": {"max_num_batched_tokens": chunk, "max_num_seqs": min(chunk, 6)},
    }
    with LLM.from_engine(engine(tmp_path, windows, **config)) as llm:
        assert generate(llm)[0] == expected(windows)
        again, hits = generate(llm)
    assert again == expected(windows)
    assert (hits > 0) is caching


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("depth", [1, 2])
def test_preemption_and_eviction(tmp_path: Path, layout: str, caching: bool, depth: int) -> None:
    """So few blocks that requests push each other and each other's prefixes out."""
    windows = LAYOUTS[layout]
    made = engine(
        tmp_path,
        windows,
        cache={"block_size": 4, "num_blocks": 1 + 27 * len(windows), "prefix_caching": caching},
        scheduler={"max_num_batched_tokens": 16, "max_num_seqs": 8},
    )
    made.core._depth = depth
    with LLM.from_engine(made) as llm:
        for _ in range(2):
            assert generate(llm)[0] == expected(windows)
    assert made.core.stats().used_blocks == 0


def drive(made: Engine, prompt: list[int], max_tokens: int) -> tuple[list[int], int]:
    """Compute one request; its tokens, and the most blocks that were in use."""
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    request = EngineRequest(
        request_id="r", prompt_token_ids=prompt, params=params, max_tokens=max_tokens, arrival_time=0.0
    )
    made.core.add_request(request)
    tokens: list[int] = []
    most = 0
    while made.core.has_unfinished:
        tokens += made.core.step().token_ids
        most = max(most, made.core.stats().used_blocks)
    return tokens, most


@pytest.mark.parametrize(
    ("windows", "num_blocks", "most"),
    [
        ((9, 9), 1 + 7, 6),  # 9 - 1 + 16 tokens touch up to 7 blocks of 4; where chunks begin at multiples of 4, 6
        ((9, None), 1 + 7 + 55, 55 + 3),  # all 219 tokens in one group, a window and the next token in the other
    ],
)
def test_a_prompt_that_the_cache_could_not_hold_whole(
    tmp_path: Path, windows: Windows, num_blocks: int, most: int
) -> None:
    made = engine(
        tmp_path,
        windows,
        cache={"block_size": 4, "num_blocks": num_blocks},
        scheduler={"max_num_batched_tokens": 16},
    )
    prompt = draw(200, 1)
    tokens, used = drive(made, prompt, 20)
    assert tokens == reference(windows, None, tuple(prompt))
    assert used == most
    if None in windows:
        with pytest.raises(RequestTooLargeError, match="takes 63 cache blocks of 4 tokens; there are 62"):
            drive(made, draw(202, 1), 20)
    made.core.shutdown()


def test_groups_of_different_pages_share_memory(tmp_path: Path) -> None:
    """Layers with other numbers of heads have pages of another size."""
    windows, kv_heads = (None, 9, None), (2, 1, 1)
    made = engine(tmp_path, windows, kv_heads, cache={"block_size": 4, "num_blocks": 200})
    with LLM.from_engine(made) as llm:
        for _ in range(2):
            tokens, _ = generate(llm)
            assert tokens == [reference(windows, kv_heads, tuple(prompt)) for prompt in PROMPTS]


def test_little_memory_is_told_in_tokens_and_too_little_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    block = 2 * 16 * HEAD_DIM * 4  # one layer a group: K and V of 16 tokens
    monkeypatch.setattr(ModelRunner, "cache_bytes_available", lambda runner: 12 * block - 1)
    made = engine(tmp_path, (9, None), cache={"block_size": 16}, scheduler={"max_num_batched_tokens": 32})
    assert made.config.cache.num_blocks == 11
    # 10 blocks: 4 of the window, and 6 of the layer that keeps everything.
    assert f"holds 96 tokens, less than one request of max_model_len={LENGTH}" in caplog.text
    assert drive(made, draw(77, 2), 20)[0] == reference((9, None), None, tuple(draw(77, 2)))
    with pytest.raises(RequestTooLargeError):
        drive(made, draw(78, 2), 20)
    made.core.shutdown()
    monkeypatch.setattr(ModelRunner, "cache_bytes_available", lambda runner: 3 * block - 1)
    with pytest.raises(CapacityError, match="the KV cache needs at least 3 blocks of 1,024 bytes, and 3,071 bytes"):
        engine(tmp_path, (9, None), cache={"block_size": 16})


def test_the_cache_is_sized_for_every_group(tmp_path: Path) -> None:
    columns = LENGTH // 16
    common: dict[str, Any] = {"scheduler": {"max_num_seqs": 2, "max_num_batched_tokens": 32}}
    made = engine(tmp_path, (9, None), cache={"block_size": 16}, **common)
    assert made.config.cache.num_blocks == 2 * 2 * columns + 1
    made.core.shutdown()
    made = engine(tmp_path, (9, None), cache={"block_size": 16, "prefix_caching": False}, **common)
    assert made.config.cache.num_blocks == 2 * (columns + 4) + 1  # 9 - 1 + 32 tokens touch 4 blocks
    made.core.shutdown()
    with pytest.raises(ConfigError, match=r"cache.num_blocks is 2, but this model needs at least 3: .* 2 groups"):
        engine(tmp_path, (9, None), cache={"num_blocks": 2})
