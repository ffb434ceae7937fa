"""Test doubles: a model whose logits depend on all of its context, read through the cache, and a driver of steps."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from vcore.interfaces.attention import AttentionBackend, AttentionContext, AttentionLayer, AttentionMetadata, LayerSpec
from vcore.interfaces.executor import StepHandle
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.logits import LogitsProcessor
from vcore.interfaces.model import BuildContext, Model
from vcore.interfaces.step import NewRow, SampledTokens, SchedulerOutput, TokenLogprobs
from vcore.interfaces.weights import CheckpointReader, TensorInfo, WeightLoader
from vcore.kv_cache.spec import FullAttentionSpec, KVCacheSpec, SlidingWindowSpec
from vcore.pooling_params import PoolingMode
from vcore.runner import ModelRunner, RunnerSettings
from vcore.sampling_params import SamplingParams

VOCAB = 40
PRIME = 1_000_003


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def context_logits(tokens: Sequence[int], vocab_size: int = VOCAB) -> np.ndarray:
    """The logits that `ContextModel` gives after `tokens`: float32 [vocab_size], different for any other context."""
    digest = 0
    for token in tokens:
        digest = (digest * 31 + int(token) + 1) % PRIME
    ids = np.arange(1, vocab_size + 1, dtype=np.int64)
    return ((digest * ids * ids + 7 * ids) % PRIME / PRIME * 8 - 4).astype(np.float32)


class ContextModel(Model):
    """Keeps token ids (as K) and positions (as V) in each layer's cache, and digests what attention finds there.

    The first layer sees everything; what later ones see within their windows must be the same.
    """

    def __init__(
        self, vocab_size: int = VOCAB, dtype: torch.dtype = torch.float32, windows: Sequence[int | None] = (None,)
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.windows = windows
        self.weight = torch.nn.Parameter(torch.empty(1))
        self.logits_dtype = dtype
        self.logits_rows: list[int] = []
        self.contexts: list[AttentionContext] = []

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        attn: AttentionContext,
        intermediate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self.contexts.append(attn)
        for layer in range(len(self.windows)):
            self._write(layer, input_ids, positions, attn)
        return attn.run(self._digests, input_ids)

    def _digests(self, attn: AttentionContext, out: torch.Tensor | None, input_ids: torch.Tensor) -> torch.Tensor:
        """float64 [num_tokens, 1]."""
        digests = []
        metadata = attn.layer_groups[0].metadata
        assert input_ids.shape[0] == metadata.num_tokens
        for i in range(metadata.num_requests):
            num_queries = int(metadata.query_start_loc[i + 1] - metadata.query_start_loc[i])
            last_slot = int(metadata.slot_mapping[metadata.query_start_loc[i + 1] - 1])
            if last_slot == 0 and not metadata.block_table[i].any():  # nobody's: all of it is the null block's
                digests += [0] * num_queries
                continue
            seen = [self._visible(layer, i, num_queries, attn) for layer in range(len(self.windows))]
            tokens = seen[0]
            for window_tokens in seen[1:]:
                assert window_tokens == tokens[len(tokens) - len(window_tokens) :]
            digest = 0
            for position, token in enumerate(tokens):
                digest = (digest * 31 + token + 1) % PRIME
                if position >= len(tokens) - num_queries:
                    digests.append(digest)
        return torch.tensor(digests, dtype=torch.float64, device=input_ids.device)[:, None]

    def _write(self, layer: int, input_ids: torch.Tensor, positions: torch.Tensor, attn: AttentionContext) -> None:
        cache = attn.layer_caches[layer]
        blocks, offsets = attn.layer_groups[layer].block_offsets(cache.shape[2])
        cache[blocks, 0, offsets, 0, 0] = input_ids.to(cache.dtype)
        cache[blocks, 1, offsets, 0, 0] = positions.to(cache.dtype)

    def _visible(self, layer: int, request: int, num_queries: int, attn: AttentionContext) -> list[int]:
        """Tokens of a request that its first query of the step and later ones see."""
        cache, metadata = attn.layer_caches[layer], attn.layer_groups[layer].plan
        assert isinstance(metadata, AttentionMetadata)
        assert metadata.sliding_window == self.windows[layer]
        length, block_size = int(metadata.seq_lens[request]), cache.shape[2]
        table = metadata.block_table[request, : -(-length // block_size)].long()
        first = 0
        if metadata.sliding_window is not None:
            first = max(0, length - num_queries - metadata.sliding_window + 1)
        assert (table == 0).tolist() == [(column + 1) * block_size <= first for column in range(len(table))]
        positions = cache[table, 1].reshape(-1)[first:length].long().tolist()
        assert positions == list(range(first, length))
        return cache[table, 0].reshape(-1)[first:length].long().tolist()

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        self.logits_rows.append(hidden_states.shape[0])
        ids = torch.arange(1, self.vocab_size + 1, device=hidden_states.device)
        digests = hidden_states.long()
        return ((digests * ids * ids + 7 * ids) % PRIME / PRIME * 8 - 4).to(self.logits_dtype)

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        self.weight.data.copy_(checkpoint.read("weight", (1,)))

    def kv_cache_specs(self) -> Sequence[KVCacheSpec]:
        common: dict[str, Any] = {"dtype": torch.float32, "num_kv_heads": 1, "head_dim": 1}
        return [
            FullAttentionSpec(**common) if window is None else SlidingWindowSpec(**common, sliding_window=window)
            for window in self.windows
        ]


class PassThroughBackend(AttentionBackend):
    """Its plan is the metadata itself."""

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        raise NotImplementedError

    def plan(self, metadata: AttentionMetadata) -> object:
        return metadata


class OneTensorCheckpoint(CheckpointReader):
    closed = False

    def tensors(self) -> dict[str, TensorInfo]:
        return {"weight": TensorInfo((1,), "float32")}

    def read(self, name: str, shape: tuple[int, ...], index: tuple[slice, ...] | None = None) -> torch.Tensor:
        return torch.full(shape, 3.0)

    def close(self) -> None:
        self.closed = True


class OneTensorLoader(WeightLoader):
    def __init__(self) -> None:
        self.checkpoint = OneTensorCheckpoint()

    def config(self) -> HFConfig:
        return HFConfig({"vocab_size": VOCAB})

    def open(self) -> CheckpointReader:
        return self.checkpoint


def no_processors(name: str) -> LogitsProcessor:
    raise LookupError(f"no processor {name}")


@dataclass
class Request:
    """A request as the driver of a test sees it."""

    request_id: str
    prompt: list[int]
    params: SamplingParams
    seed: int = 0
    sample_index: int = 0
    eos: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    pooling: PoolingMode | None = None
    output: list[int] = field(default_factory=list)
    """Tokens collected."""
    launched: int = 0
    """Tokens whose step was launched and not collected."""
    computed: int = 0
    row: int | None = None
    blocks: list[list[int]] = field(default_factory=list)
    """By group; 0 behind its window. Empty while it has no row."""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    error: str | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.output) + self.launched


class Driver:
    """Schedules by hand: says which request computes how many tokens, and keeps rows and blocks."""

    def __init__(self, runner: ModelRunner, settings: RunnerSettings, num_blocks: int, seed: int = 0) -> None:
        self.runner, self.settings = runner, settings
        self.random = random.Random(seed)
        self.windows = runner.cache_layout().windows
        self.free_rows = list(range(settings.max_num_seqs))
        self.free_blocks = list(range(1, num_blocks))
        self.freed: list[int] = []
        self.step_id = 0
        self.in_flight: deque[tuple[list[Request], StepHandle]] = deque()

    def launch(self, wanted: Sequence[tuple[Request, int]]) -> StepHandle:
        """Launch a step of (request, number of tokens) pairs; those with one token are put first."""
        ordered = sorted(wanted, key=lambda pair: pair[1] != 1)
        new_rows: list[NewRow] = []
        grown: list[tuple[int, list[int]]] = []
        passed: list[tuple[int, int, int]] = []
        for request, count in ordered:
            if request.row is None:
                request.blocks = [[] for _ in self.windows]
            passed += self._pass(request)
            needed = -(-(request.computed + count) // self.settings.block_size)
            fresh = [[self._block() for _ in self.windows] for _ in range(needed - len(request.blocks[0]))]
            for ids, *added in zip(request.blocks, *fresh, strict=True):
                ids += added
            if request.row is None:
                request.row = self.free_rows.pop(self.random.randrange(len(self.free_rows)))
                new_rows.append(self._new_row(request))
            else:
                grown += [(request.row, column) for column in fresh]
        self.random.shuffle(new_rows)
        samples = [not r.pooling and r.computed + count == r.num_tokens for r, count in ordered]
        output = SchedulerOutput(
            step_id=self.step_id,
            passed_entries=np.array(passed, dtype=np.int32).reshape(-1, 3),
            freed_rows=self.freed,
            new_rows=new_rows,
            grown_rows=np.array([row for row, _ in grown], dtype=np.int32),
            grown_block_ids=np.array([ids for _, ids in grown], dtype=np.int32).reshape(-1, len(self.windows)),
            rows=np.array([request.row for request, _ in ordered], dtype=np.int32),
            num_tokens=np.array([count for _, count in ordered], dtype=np.int32),
            samples=np.array(samples, dtype=np.bool_),
            num_decodes=sum(count == 1 for _, count in ordered),
        )
        self.freed, self.step_id = [], self.step_id + 1
        for (request, count), sampled in zip(ordered, samples, strict=True):
            request.computed += count
            request.launched += sampled
        handle = self.runner.launch(output)
        self.in_flight.append(([request for request, _ in ordered], handle))
        return handle

    def collect(self) -> SampledTokens:
        """Collect the oldest step."""
        requests, handle = self.in_flight.popleft()
        result = handle.collect()
        by_row = {request.row: request for request in requests}
        for row, token in zip(result.rows.tolist(), result.token_ids.tolist(), strict=True):
            request = by_row[row]
            request.launched -= 1
            request.output.append(token)
            request.error = result.errors.get(row)
        for row, entries in result.logprobs.items():
            by_row[row].logprobs += entries
        for row, entries in result.prompt_logprobs.items():
            by_row[row].prompt_logprobs += entries
        return result

    def step(self, *wanted: tuple[Request, int]) -> SampledTokens:
        """Launch and collect."""
        self.launch(wanted)
        return self.collect()

    def release(self, request: Request) -> None:
        """Take row and blocks away, as at the end or at a preemption."""
        assert request.row is not None
        assert not request.launched
        self.freed.append(request.row)
        self.free_rows.append(request.row)
        self.free_blocks += [block for ids in request.blocks for block in ids if block]
        request.row, request.blocks, request.computed = None, [], 0

    def run(self, request: Request, num_tokens: int) -> list[int]:
        """Compute the whole prompt in a step, then decode until there are `num_tokens`."""
        while len(request.output) < num_tokens:
            self.step((request, request.num_tokens - request.computed))
        return request.output

    def _pass(self, request: Request) -> list[tuple[int, int, int]]:
        """Take back what no query sees any more."""
        passed: list[tuple[int, int, int]] = []
        for group, (window, ids) in enumerate(zip(self.windows, request.blocks, strict=True)):
            first = 0 if window is None else max(0, request.computed - window + 1)
            for column in range(min(first // self.settings.block_size, len(ids))):
                if ids[column]:
                    assert request.row is not None
                    passed.append((group, request.row, column))
                    self.free_blocks.append(ids[column])
                    ids[column] = 0
        return passed

    def _block(self) -> int:
        return self.free_blocks.pop(self.random.randrange(len(self.free_blocks)))

    def _new_row(self, request: Request) -> NewRow:
        assert request.row is not None
        return NewRow(
            row=request.row,
            request_id=request.request_id,
            token_ids=request.prompt + request.output,
            num_prompt_tokens=len(request.prompt),
            num_computed_tokens=0,
            block_ids=[list(ids) for ids in request.blocks],
            params=request.params,
            eos_token_ids=request.eos,
            seed=request.seed,
            sample_index=request.sample_index,
            bad_words_token_ids=request.bad_words,
            pooling=request.pooling,
        )


@dataclass
class Setup:
    """A runner that is ready, with its doubles."""

    runner: ModelRunner
    model: ContextModel
    loader: OneTensorLoader
    driver: Driver
    build_contexts: list[BuildContext]


@pytest.fixture
def setup_runner() -> Callable[..., Setup]:
    """Makes a runner over the doubles, loaded and with a cache."""

    def make(
        *,
        block_size: int = 4,
        num_blocks: int = 64,
        max_num_seqs: int = 8,
        seed: int = 0,
        keep_tokens_on_device: bool = False,
        make_processor: Callable[[str], LogitsProcessor] = no_processors,
        model: ContextModel | None = None,
        vocab_size: int = VOCAB,
        windows: Sequence[int | None] = (None,),
        device: str = "cpu",
        graph_sizes: tuple[int, ...] = (),
        max_segment_tokens: int = 0,
        capture_at_start: bool = False,
    ) -> Setup:
        settings = RunnerSettings(
            device=torch.device(device),
            dtype=torch.float32,
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=64,
            max_model_len=60,
            memory_fraction=0.5,
            vocab_size=vocab_size,
            cpu_cache_bytes_limit=1 << 20,
            graph_sizes=graph_sizes,
            max_segment_tokens=max_segment_tokens,
            capture_at_start=capture_at_start,
        )
        used, loader, contexts = model or ContextModel(vocab_size, windows=windows), OneTensorLoader(), []

        def build(context: BuildContext) -> Model:
            contexts.append(context)
            return used

        runner = ModelRunner(
            settings,
            build_model=build,
            loader=loader,
            attention=PassThroughBackend(),
            make_processor=make_processor,
            keep_tokens_on_device=keep_tokens_on_device,
        )
        runner.load()
        runner.initialize_cache(num_blocks)
        return Setup(runner, used, loader, Driver(runner, settings, num_blocks, seed), contexts)

    return make


@pytest.fixture
def make_request() -> Callable[..., Request]:
    """Makes a request; keywords that are not a request's own become sampling parameters."""

    def make(prompt: list[int], request_id: str = "r", **values: object) -> Request:
        own = {
            name: values.pop(name) for name in ("seed", "sample_index", "eos", "bad_words", "pooling") if name in values
        }
        params = SamplingParams(**{"temperature": 0.0, "max_tokens": None, **values})
        return Request(request_id, prompt, params, **own)  # type: ignore[arg-type]

    return make


@pytest.fixture
def naive_logits() -> Callable[[Sequence[int]], np.ndarray]:
    """What the doubles' model says after some tokens."""
    return context_logits
