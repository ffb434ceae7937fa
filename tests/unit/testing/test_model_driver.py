"""`ModelDriver` over layers of several kinds of cache: block tables, and what a window leaves behind."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionContext,
    AttentionLayer,
    AttentionMetadata,
    LayerSpec,
)
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import Model
from vcore.kv_cache.spec import FullAttentionSpec, KVCacheSpec, LatentCacheSpec, SlidingWindowSpec
from vcore.testing import MemoryCheckpoint, ModelDriver

BLOCK_SIZE = 4
FULL = FullAttentionSpec(dtype=torch.float32, num_kv_heads=1, head_dim=2)
WINDOW = SlidingWindowSpec(dtype=torch.float32, num_kv_heads=1, head_dim=2, sliding_window=6)
LATENT = LatentCacheSpec(dtype=torch.float32, latent_dim=3)


class PlanIsMetadata(AttentionBackend):
    def __init__(self, *, options: None, context: object) -> None:
        pass

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        raise NotImplementedError

    def plan(self, metadata: AttentionMetadata) -> AttentionMetadata:
        return metadata


class Recorder(Model):
    """Writes each token's id into its slots, and keeps what it was given."""

    specs: Sequence[KVCacheSpec] = ()

    def __init__(self, *, options: None, context: object) -> None:
        super().__init__()
        self.contexts: list[AttentionContext] = []

    def forward(self, input_ids, positions, attn, intermediate=None):
        self.contexts.append(attn)
        for cache, group, spec in zip(attn.layer_caches, attn.layer_groups, self.specs, strict=True):
            for token, block, offset in zip(input_ids, *group.block_offsets(BLOCK_SIZE), strict=True):
                page = cache[block]
                (page if isinstance(spec, LatentCacheSpec) else page.transpose(0, 1))[offset] = float(token)
        return input_ids[:, None].float()

    def compute_logits(self, hidden_states):
        return hidden_states

    def load_weights(self, checkpoint) -> None:
        pass

    def kv_cache_specs(self) -> Sequence[KVCacheSpec]:
        return self.specs


def driver_of(*specs: KVCacheSpec, **keywords) -> ModelDriver:
    model = type("Kinds", (Recorder,), {"specs": specs})
    return ModelDriver(
        model, HFConfig({}), MemoryCheckpoint({}), attention=PlanIsMetadata, block_size=BLOCK_SIZE, **keywords
    )


def table(driver: ModelDriver, layer: int, row: int = 0) -> list[int]:
    return driver.model.contexts[-1].layer_groups[layer].metadata.block_table[row].tolist()


def test_layers_with_equal_specs_share_a_group_and_others_have_their_own_blocks():
    driver = driver_of(FULL, WINDOW, FULL, LATENT)
    driver.step({"a": [1] * 5})
    groups = driver.model.contexts[-1].layer_groups
    assert groups[0] is groups[2]
    assert len({id(group) for group in groups}) == 3
    assert [group.metadata.sliding_window for group in groups] == [None, 6, None, None]
    tables = [set(table(driver, layer)) for layer in (0, 1, 3)]
    assert len(set.union(*tables)) == 6
    assert driver.layer_caches[3].shape[1:] == (BLOCK_SIZE, 3)


@pytest.mark.parametrize("chunk", [1, 3, 4, 9])
def test_what_no_query_sees_any_more_is_nan_and_its_entry_null(chunk: int):
    driver = driver_of(FULL, WINDOW)
    for start in range(0, 36, chunk):
        driver.step({"a": [7] * chunk})
        first_seen = max(0, start - 6 + 1)  # by the first query of the step
        full, window = table(driver, 0), table(driver, 1)
        assert 0 not in full
        assert [entry == 0 for entry in window] == [
            (index + 1) * BLOCK_SIZE <= first_seen for index in range(len(window))
        ]
        for layer, block_ids in enumerate((full, window)):
            tokens = driver.layer_caches[layer][block_ids].transpose(1, 2).flatten(0, 1)  # [tokens, 2, 1, 2]
            written = (tokens == 7).flatten(1).all(1).tolist()
            kept = 0 if layer == 0 else first_seen // BLOCK_SIZE * BLOCK_SIZE
            assert written[kept : start + chunk] == [True] * (start + chunk - kept)
            assert not any(written[:kept])
            assert tokens[:kept].isnan().all()


def test_a_windowed_layer_runs_in_a_cache_that_could_not_hold_it_whole():
    driver = driver_of(WINDOW, num_blocks=5)
    for _ in range(100):
        driver.step({"a": [1]})
    assert len(table(driver, 0)) == 25


def test_blocks_are_enough_for_every_group():
    driver = driver_of(FULL, LATENT, num_blocks=4)
    driver.step({"a": [1] * 12})
    assert 0 not in table(driver, 0) + table(driver, 1)


def test_a_model_without_caches_runs():
    driver = driver_of()
    assert driver.step({"a": [3, 4], "b": [5]})["a"].flatten().tolist() == [3.0, 4.0]
