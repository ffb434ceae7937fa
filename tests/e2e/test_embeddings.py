"""Embeddings of a tiny Llama against transformers' hidden states, however they are computed."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from vcore import LLM, EmbeddingOutput, PoolingParams, SamplingParams
from vcore.config import PluginsConfig, load_config
from vcore.engine.model_check import check_model
from vcore.plugins import discover
from vcore.testing.tiny_checkpoint import TinyCheckpoint

HIDDEN = 32
LENGTHS = (1, 2, 7, 16, 33, 64, 5, 40)
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return TinyCheckpoint(config, tmp_path_factory.mktemp("embeddings") / "tiny-llama")


@pytest.fixture(scope="module")
def prompts(checkpoint: TinyCheckpoint) -> list[list[int]]:
    return [checkpoint.prompt(length, seed) for seed, length in enumerate(LENGTHS)]


def make(checkpoint: TinyCheckpoint, **overrides: Any) -> LLM:
    settings = {
        "model.pooling": "last",
        "model.skip_tokenizer": True,
        "cache.num_blocks": 200,
        "cache.block_size": 8,
    } | overrides
    return LLM(model=checkpoint.folder, device="cpu", progress=False, **settings)


@torch.inference_mode()
def hidden_states(checkpoint: TinyCheckpoint, token_ids: list[int]) -> np.ndarray:
    """After the final norm: float32 [num_tokens, hidden_size]."""
    return checkpoint.reference.model(torch.tensor([token_ids])).last_hidden_state[0].numpy()


def expected(checkpoint: TinyCheckpoint, token_ids: list[int], mode: str) -> np.ndarray:
    states = hidden_states(checkpoint, token_ids)
    return states[-1] if mode == "last" else states.mean(axis=0, dtype=np.float64)


def vectors(outputs: list[EmbeddingOutput]) -> list[np.ndarray]:
    found = []
    for output in outputs:
        assert output.finish_reason == "stop", output.error
        assert output.embedding is not None
        assert output.embedding.dtype == np.float32
        found.append(output.embedding)
    return found


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=2e-5)


WAYS: dict[str, dict[str, Any]] = {
    "at_once": {},
    "chunked": {"scheduler.max_num_batched_tokens": 8, "scheduler.max_num_seqs": 3},
    "a_token_at_a_time": {"scheduler.max_num_batched_tokens": 1, "scheduler.max_num_seqs": 1},
    "two_in_flight": {
        "runtime.async_scheduling": True,
        "scheduler.max_num_batched_tokens": 8,
        "scheduler.max_num_seqs": 4,
    },
    "no_prefix_cache": {"cache.prefix_caching": False},
}


@pytest.mark.parametrize("mode", ["last", "mean"])
@pytest.mark.parametrize("way", WAYS)
def test_vectors_are_those_of_transformers(
    checkpoint: TinyCheckpoint, prompts: list[list[int]], mode: str, way: str
) -> None:
    with make(checkpoint, **{"model.pooling": mode} | WAYS[way]) as llm:
        outputs = llm.embed(prompts, PoolingParams(normalize=False), progress=False)
        assert not llm.stats().used_blocks
    for prompt, output, vector in zip(prompts, outputs, vectors(outputs), strict=True):
        assert output.prompt_token_ids == prompt
        assert output.num_prompt_tokens == len(prompt)
        close(vector, expected(checkpoint, prompt, mode))


@pytest.mark.parametrize("mode", ["last", "mean"])
def test_vectors_have_length_1_and_as_many_features_as_wanted(
    checkpoint: TinyCheckpoint, prompts: list[list[int]], mode: str
) -> None:
    with make(checkpoint, **{"model.pooling": mode}) as llm:
        whole = vectors(llm.embed(prompts, progress=False))
        few = vectors(llm.embed(prompts, PoolingParams(dimensions=10), progress=False))
        raw = vectors(llm.embed(prompts, PoolingParams(dimensions=10, normalize=False), progress=False))
    for prompt, all_of_it, leading, not_scaled in zip(prompts, whole, few, raw, strict=True):
        wanted = expected(checkpoint, prompt, mode)
        close(all_of_it, unit(wanted))
        close(leading, unit(wanted[:10]))
        close(not_scaled, wanted[:10])


@pytest.mark.parametrize("mode", ["last", "mean"])
@pytest.mark.parametrize("depth", [False, True], ids=["alone", "two_in_flight"])
def test_one_batch_embeds_and_generates(
    checkpoint: TinyCheckpoint, prompts: list[list[int]], mode: str, depth: bool
) -> None:
    """Neither sees the other: tokens are those of an engine that generates only."""
    with make(checkpoint) as llm:
        alone = [output.outputs[0].token_ids for output in llm.generate(prompts[2:4], GREEDY, progress=False)]
    settings = {"model.pooling": mode, "runtime.async_scheduling": depth, "scheduler.max_num_batched_tokens": 16}
    with (
        make(checkpoint, **settings, max_num_seqs=6) as llm,
        closing(llm.stream(prompts[2], GREEDY)) as first,
        closing(llm.stream(prompts[3], GREEDY)) as second,
    ):
        next(first)
        next(second)
        embedded = vectors(llm.embed(prompts, PoolingParams(normalize=False), progress=False))
        mixed = [list(stream)[-1].outputs[0].token_ids for stream in (first, second)]
    assert mixed == alone
    for prompt, vector in zip(prompts, embedded, strict=True):
        close(vector, expected(checkpoint, prompt, mode))


@pytest.mark.parametrize("mode", ["last", "mean"])
@pytest.mark.parametrize("depth", [False, True], ids=["alone", "two_in_flight"])
def test_preempted_prompts_begin_anew(
    checkpoint: TinyCheckpoint, prompts: list[list[int]], mode: str, depth: bool
) -> None:
    """Ten blocks for a text that grows and a long prompt in chunks, which must give way."""
    settings = {
        "model.pooling": mode,
        "cache.num_blocks": 11,
        "cache.prefix_caching": False,
        "scheduler.policy": "priority",
        "scheduler.max_num_batched_tokens": 5,
        "runtime.async_scheduling": depth,
    }
    long = SamplingParams(temperature=0.0, max_tokens=55, ignore_eos=True, priority=-1)
    with make(checkpoint, **settings, max_num_seqs=4) as llm, closing(llm.stream(prompts[2], long)) as stream:
        next(stream)
        outputs = llm.embed([prompts[5], prompts[7], prompts[4]], PoolingParams(normalize=False), progress=False)
        list(stream)
        assert llm.stats().preemptions
    assert any(output.metrics is not None and output.metrics.num_preemptions for output in outputs)
    for output, vector in zip(outputs, vectors(outputs), strict=True):
        close(vector, expected(checkpoint, output.prompt_token_ids, mode))


def test_a_cached_beginning_serves_the_last_token_and_never_the_mean(
    checkpoint: TinyCheckpoint, prompts: list[list[int]]
) -> None:
    prompt = prompts[7]  # 40 tokens, five blocks
    for mode, num_cached in (("last", 32), ("mean", 0)):
        with make(checkpoint, **{"model.pooling": mode}) as llm:
            cold, warm = (llm.embed(prompt, PoolingParams(normalize=False), progress=False)[0] for _ in range(2))
            salted = llm.embed(prompt, PoolingParams(cache_salt="other"), progress=False)[0]
            generated = llm.generate(prompt, GREEDY, progress=False)[0]
        assert (cold.num_cached_tokens, warm.num_cached_tokens, salted.num_cached_tokens) == (0, num_cached, 0)
        assert generated.num_cached_tokens == 32, "what an embedding computed serves others"
        for vector in vectors([cold, warm]):
            close(vector, expected(checkpoint, prompt, mode))


def test_a_prompt_may_fill_the_model(checkpoint: TinyCheckpoint) -> None:
    """No token follows, so none needs room."""
    with make(checkpoint, **{"model.pooling": "last"}) as llm:
        full = checkpoint.prompt(64, seed=9)
        close(vectors(llm.embed(full, progress=False))[0], unit(expected(checkpoint, full, "last")))


@pytest.mark.parametrize(("says", "mode"), [("lasttoken", "last"), ("mean_tokens", "mean")])
def test_the_checkpoint_says_how(
    checkpoint: TinyCheckpoint, prompts: list[list[int]], tmp_path: Path, says: str, mode: str
) -> None:
    for file in checkpoint.folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds.items()]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    flags = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False, f"pooling_mode_{says}": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    settings = {"model.skip_tokenizer": True, "cache.num_blocks": 50}
    with LLM(model=tmp_path, device="cpu", progress=False, **settings) as llm:
        assert llm.config.model.pooling == mode
        [vector] = vectors(llm.embed(prompts[4], progress=False))
    close(vector, expected(checkpoint, prompts[4], mode))  # there is no Normalize, so it is as it came


def test_a_model_whose_hidden_states_are_not_finite_fails_the_request_alone(
    checkpoint: TinyCheckpoint, prompts: list[list[int]]
) -> None:
    """One token's embedding is spoilt: prompts that hold it fail, others in the same step do not."""
    spoilt = next(token for token in prompts[5] if token not in prompts[4])
    with make(checkpoint) as llm:
        forward = llm._engine.core._executor._runner._forward  # type: ignore[union-attr]
        embedding = forward._model.get_parameter("model.embed_tokens.weight")
        embedding[spoilt] = float("nan")
        bad, good = llm.embed([prompts[5], prompts[4]], PoolingParams(normalize=False), progress=False)
    assert (bad.embedding, bad.finish_reason) == (None, "error")
    assert "hidden states hold NaN" in str(bad.error)
    close(vectors([good])[0], expected(checkpoint, prompts[4], "last"))


@pytest.mark.parametrize("tied", [False, True])
def test_a_trunk_alone_embeds(checkpoint: TinyCheckpoint, prompts: list[list[int]], tmp_path: Path, tied: bool) -> None:
    """As models for embeddings are published: ``LlamaModel``, no LM head, names without ``model.``."""
    trunk = checkpoint.reference.model
    trunk.config.tie_word_embeddings = tied
    trunk.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["LlamaModel"]
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": "Transformer"}]))
    settings = {"model.pooling": "last", "model.skip_tokenizer": True, "cache.num_blocks": 50}
    with LLM(model=tmp_path, device="cpu", progress=False, **settings) as llm:
        [vector] = vectors(llm.embed(prompts[4], PoolingParams(normalize=True), progress=False))
    close(vector, unit(expected(checkpoint, prompts[4], "last")))
    report = check_model(load_config(None, settings | {"model.path": str(tmp_path)}), discover(PluginsConfig()))
    assert (report.weights, report.reasons) == ("fit", [])
