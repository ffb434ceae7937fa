"""`ModelDriver`: run a model step by step without an engine, to compare it with a reference.

    driver = ModelDriver(MyModel, config, checkpoint, attention=MyBackend)
    logits = driver.step({"a": prompt_a, "b": prompt_b[:7]})     # whole prompt and first chunk, one batch
    logits = driver.step({"a": [next_token], "b": prompt_b[7:]})  # decode and second chunk

Layers with equal cache specs form a group with a block table of its own. Blocks are given out in a shuffled
order, caches start as NaN, and what a sliding window has left behind becomes NaN, so that a model or backend
which reads a wrong slot shows it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from vcore.interfaces.attention import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionContext,
    GroupContext,
)
from vcore.interfaces.collective import Collective
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.weights import CheckpointReader
from vcore.kv_cache.spec import KVCacheSpec
from vcore.runner.recorder import Recorder
from vcore.runner.segments import Segments, Step
from vcore.testing.attention_batch import build_attention_metadata

__all__ = ["ModelDriver"]


@dataclass(slots=True)
class _Sequence:
    """What the driver keeps of a request."""

    block_ids: list[list[int]]
    """By group; 0 for what the group's window has left behind."""
    num_tokens: int = 0
    num_passed: list[int] = field(init=False)
    """By group, how many leading blocks that is."""

    def __post_init__(self) -> None:
        self.num_passed = [0] * len(self.block_ids)


class ModelDriver:
    """A model, its caches, and the requests that run on it."""

    def __init__(
        self,
        model: Callable[..., Model],
        config: HFConfig,
        checkpoint: CheckpointReader,
        *,
        attention: Callable[..., AttentionBackend],
        attention_fuses: frozenset[str] = frozenset(),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        block_size: int = 16,
        num_blocks: int = 64,
        max_model_len: int = 256,
        tp_rank: int = 0,
        tp_size: int = 1,
        collective: Collective | None = None,
        seed: int = 0,
    ) -> None:
        """Args:
        model: what the model plugin's `load` names.
        config: the model's config.json.
        checkpoint: where the weights come from.
        attention: what the backend plugin's `load` names.
        attention_fuses: the backend's `AttentionCapabilities.fuses`.
        dtype: of weights, activations and caches.
        device: where all is computed.
        block_size: tokens a cache block holds.
        num_blocks: blocks for each group of layers, one of them the null block.
        max_model_len: most tokens of a request.
        tp_rank: this rank.
        tp_size: over how many ranks each layer is split.
        collective: how the ranks exchange tensors.
        seed: of the order in which blocks are given out.

        Raises:
            ModelError: the config or the weights do not fit the model.
        """
        self._device = torch.device(device)
        self._block_size = block_size
        self._backend = attention(
            options=None,
            context=AttentionBackendContext(
                device=self._device,
                dtype=dtype,
                block_size=block_size,
                max_num_seqs=num_blocks,
                max_num_batched_tokens=num_blocks * block_size,
                max_model_len=max_model_len,
            ),
        )
        context = BuildContext(
            config=config,
            dtype=dtype,
            device=self._device,
            attention=self._backend,
            max_model_len=max_model_len,
            tp_rank=tp_rank,
            tp_size=tp_size,
            collective=collective,
            attention_fuses=attention_fuses,
        )
        self.model = model(options=None, context=context)
        """The model, loaded."""
        self.model.load_weights(checkpoint)
        layer_specs = self.model.kv_cache_specs()
        self._specs: list[KVCacheSpec] = list(dict.fromkeys(layer_specs)) or [KVCacheSpec(dtype=dtype)]
        self._group_of_layer = [self._specs.index(spec) for spec in layer_specs]
        num_ids = (num_blocks - 1) * len(self._specs) + 1  # no id stands in two groups' tables
        self.layer_caches = [
            torch.full((num_ids, *spec.page_shape(block_size)), float("nan"), dtype=spec.dtype, device=device)
            for spec in layer_specs
        ]
        """Each layer's cache; NaN where nothing was written, and behind a sliding window."""
        self._free_blocks = list(range(1, num_ids))
        random.Random(seed).shuffle(self._free_blocks)
        self._sequences: dict[str, _Sequence] = {}
        self._segments: Segments | None = None

    @torch.inference_mode()
    def step(self, tokens: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        """Compute further tokens of some requests in one batch.

        Args:
            tokens: by request, its next tokens; a request that is not known begins with them.

        Returns:
            By request, logits [number of its tokens in this step, vocab_size], on the CPU.
        """
        # Requests with one token stand first; apart from that, the order is the caller's.
        names = sorted(tokens, key=lambda name: len(tokens[name]) > 1)
        sequences = [self._grow(name, len(tokens[name])) for name in names]
        query_lens = [len(tokens[name]) for name in names]
        positions = [
            position
            for query, sequence in zip(query_lens, sequences, strict=True)
            for position in range(sequence.num_tokens - query, sequence.num_tokens)
        ]
        groups = [self._plan(index, query_lens, sequences) for index in range(len(self._specs))]
        attn = AttentionContext([groups[index] for index in self._group_of_layer], self.layer_caches)
        input_ids = torch.tensor([token for name in names for token in tokens[name]], device=self._device)
        hidden_states = self._compute(Step(input_ids, torch.tensor(positions, device=self._device), groups, attn))
        logits = self.model.compute_logits(hidden_states).cpu()
        return dict(zip(names, torch.split(logits, query_lens), strict=True))

    def record_segments(self, recorder: Recorder, size: int) -> None:
        """Compute later steps, of up to `size` tokens each, padded, in segments: the first as it is, others from what
        `recorder` has recorded."""
        self._segments = Segments(
            self.model,
            recorder,
            (size,),
            self._group_of_layer,
            num_groups=len(self._specs),
            device=self._device,
        )

    def _compute(self, step: Step) -> torch.Tensor:
        if self._segments is None:
            computed: torch.Tensor = self.model(step.input_ids, step.positions, step.attn)
            return computed
        hidden_states = self._segments.run(step)
        assert hidden_states is not None, "the model cannot be recorded; the log says why"
        return hidden_states

    def _plan(self, group: int, query_lens: list[int], sequences: list[_Sequence]) -> GroupContext:
        metadata = build_attention_metadata(
            query_lens,
            [sequence.num_tokens for sequence in sequences],
            [sequence.block_ids[group] for sequence in sequences],
            block_size=self._block_size,
            device=self._device,
        )
        metadata.sliding_window = self._specs[group].window
        return GroupContext(self._backend.plan(metadata), metadata)

    def _grow(self, name: str, num_new_tokens: int) -> _Sequence:
        """Blocks for the new tokens, once those that none of them sees are given up."""
        sequence = self._sequences.setdefault(name, _Sequence([[] for _ in self._specs]))
        for group, (spec, block_ids) in enumerate(zip(self._specs, sequence.block_ids, strict=True)):
            if spec.window is not None:
                self._pass(sequence, group, max(0, sequence.num_tokens - spec.window + 1) // self._block_size)
            while len(block_ids) * self._block_size < sequence.num_tokens + num_new_tokens:
                block_ids.append(self._free_blocks.pop())
        sequence.num_tokens += num_new_tokens
        return sequence

    def _pass(self, sequence: _Sequence, group: int, num_passed: int) -> None:
        """The first `num_passed` blocks of a request are behind its window."""
        passed = sequence.block_ids[group][sequence.num_passed[group] : num_passed]
        if not passed:
            return
        for layer_cache, group_of_layer in zip(self.layer_caches, self._group_of_layer, strict=True):
            if group_of_layer == group:
                layer_cache[passed] = float("nan")
        sequence.block_ids[group][sequence.num_passed[group] : num_passed] = [0] * len(passed)
        sequence.num_passed[group] = num_passed
        self._free_blocks[:0] = passed
