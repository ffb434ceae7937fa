"""A tiny model with a tokenizer, an event loop that lasts, and engines over a core that plays back tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vcore import AsyncLLM
from vcore.config import EngineConfig
from vcore.engine.core import EngineHealth
from vcore.engine.pooling import ModelPooling
from vcore.engine.remote.composition import Composition
from vcore.kv_cache.block_map import BlockMap
from vcore.plugins.catalog import Catalog
from vcore.plugins.resolved import ResolvedSet
from vcore.scheduler.settings import SchedulerStats
from vcore.testing import TinyCheckpoint

VOCAB_SIZE = 260
CONFIG = {
    "model": {"pooling": "mean"},
    "cache": {"num_blocks": 512, "block_size": 4},
    "runtime": {"device": "cpu", "num_threads": 1},
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random Llama over bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("tiny")
    TinyCheckpoint(config, folder)
    backend = Tokenizer(models.BPE({char: byte for byte, char in bytes_to_unicode().items()}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<eos>", special=True)])
    backend.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", "chat_template": template}))
    return str(folder)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for a module, so that an engine outlasts a test."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module", params=["thread", "process"])
def llm(request: pytest.FixtureRequest, runner: asyncio.Runner, tiny: str) -> Iterator[AsyncLLM]:
    """A running engine over the tiny model, in this process and in one of its own."""
    server = {"port": 1, "api_keys": ["hush"]}  # of no interest to an engine
    llm = AsyncLLM(tiny, config={**CONFIG, "server": server}, in_process=request.param == "thread")
    runner.run(llm.start())
    yield llm
    runner.run(llm.close())


async def settled(llm: AsyncLLM) -> SchedulerStats:
    """The counts, once the engine has nothing left to do."""
    while (stats := await llm.stats()).running or stats.waiting:
        pass
    return stats


class PlaybackMixin:
    """What the loop needs beyond the core of the engine's own tests."""

    faults: tuple[str, ...] = ()
    failed_steps = 0
    alive = True

    def stats(self) -> SchedulerStats:
        return SchedulerStats(
            running=len(self.running),  # type: ignore[attr-defined]
            waiting=0,
            used_blocks=0,
            free_blocks=0,
            cached_blocks=0,
            prefix_query_tokens=0,
            prefix_hit_tokens=0,
            preemptions=0,
        )

    def block_map(self) -> BlockMap:
        return BlockMap(num_blocks=3, block_size=4, used=1, free=1, cached=1, states=b"\0\1\2")

    def health(self) -> EngineHealth:
        return EngineHealth(self.alive, None if self.alive else "rank 0 is gone", self.faults, self.failed_steps)


@pytest.fixture(scope="session")
def playback(fake_core: type) -> type:
    """`FakeCore`, as the engine loop wants it."""
    return type("Playback", (PlaybackMixin, fake_core), {})


MakeFake = Callable[..., tuple[AsyncLLM, Any]]


@pytest.fixture
def make_fake(playback: type, tiny: str, monkeypatch: pytest.MonkeyPatch) -> MakeFake:
    """`make_fake(script)`: an `AsyncLLM` whose engine, in a thread, answers each request with the script's tokens."""

    def make(script: Any = b"abcdefghij" * 10, preparer: Any = None, **options: Any) -> tuple[AsyncLLM, Any]:
        answer = script if callable(script) else lambda request: list(script)
        core = playback(answer)
        engine = SimpleNamespace(
            core=core,
            config=EngineConfig(),
            vocab_size=VOCAB_SIZE,
            max_model_len=128,
            eos_token_ids=(),
            tokenizer_path=Path(tiny),
            catalog=Catalog([]),
            plugins=ResolvedSet(()),
            preparer=preparer,
            pooling=ModelPooling(mode="last", size=3),
        )
        monkeypatch.setattr(Composition, "_build", lambda self: engine)
        return AsyncLLM(tiny, in_process=True, **options), core

    return make
