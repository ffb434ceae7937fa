"""A core that plays back tokens, small real tokenizers, and an `LLM` made of them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from vcore.config import EngineConfig
from vcore.engine.llm import LLM
from vcore.engine.pooling import NO_POOLING
from vcore.engine.request import EngineRequest, FinishReason
from vcore.engine.step_output import Finished, Started, StepOutput
from vcore.interfaces.step import TokenLogprobs
from vcore.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class FakeCore:
    """Does what `EngineCore` says, with tokens from a script instead of a model.

    Each step gives every request `per_step` tokens. `on_step` runs at the beginning of each.
    """

    def __init__(self, script: Callable[[EngineRequest], Iterable[int]], *, per_step: int = 1) -> None:
        self.script = script
        self.per_step = per_step
        self.on_step: Callable[[], None] = lambda: None
        self.refuse: Callable[[EngineRequest], None] = lambda request: None
        self.running: dict[str, tuple[EngineRequest, list[int], list[int]]] = {}
        self.added: list[EngineRequest] = []
        self.aborted: list[str] = []
        self.finished: list[tuple[str, int, str | None]] = []
        self.errors: dict[str, str] = {}
        self.num_steps = 0
        self.clock = 100.0
        self.is_shut_down = False
        self.profile: list[object] = []
        self._endings: dict[str, Finished] = {}

    @property
    def has_unfinished(self) -> bool:
        return bool(self.running or self._endings)

    def add_request(self, request: EngineRequest) -> None:
        self.refuse(request)
        self.added.append(request)
        self.running[request.request_id] = (request, list(self.script(request)), [])

    def abort(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            if self.running.pop(request_id, None) is not None:
                self.aborted.append(request_id)
                self._endings[request_id] = Finished(FinishReason.ABORT, None, 0)

    def finish(self, request_id: str, num_tokens: int, stop_reason: str | None) -> None:
        if self.running.pop(request_id, None) is not None:
            self.finished.append((request_id, num_tokens, stop_reason))
            self._endings[request_id] = Finished(FinishReason.STOP, stop_reason, 0)

    def step(self) -> StepOutput:
        self.on_step()
        self.num_steps += 1
        self.clock += 1.0
        output = StepOutput(time=self.clock)
        output.finished.update(self._endings)
        self._endings = {}
        for request_id, (request, script, given) in list(self.running.items()):
            if not given:
                output.started[request_id] = Started(self.clock - 0.5, num_cached_tokens=2)
                if request.params.prompt_logprobs is not None:
                    output.prompt_logprobs[request_id] = [logprobs_of(i) for i in request.prompt_token_ids[1:]]
            if request_id in self.errors:
                output.finished[request_id] = Finished(FinishReason.ERROR, self.errors[request_id], 1)
                del self.running[request_id]
                continue
            if request.pooling is not None:
                output.vectors[request_id] = array("f", request.prompt_token_ids[:3]).tobytes()
                output.finished[request_id] = Finished(FinishReason.STOP, None, 0)
                del self.running[request_id]
                continue
            for _ in range(self.per_step):
                if self._give(request, script, given, output):
                    del self.running[request_id]
                    break
        return output

    def _give(self, request: EngineRequest, script: list[int], given: list[int], output: StepOutput) -> bool:
        token = script[len(given)]
        given.append(token)
        output.request_ids.append(request.request_id)
        output.token_ids.append(token)
        if request.params.logprobs is not None:
            output.logprobs.setdefault(request.request_id, []).append(logprobs_of(token))
        reason, stop = None, None
        if len(given) > request.params.min_tokens and token in request.eos_token_ids:
            reason = FinishReason.STOP
        elif len(given) > request.params.min_tokens and token in request.params.stop_token_ids:
            reason, stop = FinishReason.STOP, token
        elif len(given) == request.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None:
            output.finished[request.request_id] = Finished(reason, stop, 1)
        return reason is not None

    def reset_prefix_cache(self) -> bool:
        return True

    def stats(self) -> str:
        return "stats"

    def health(self) -> str:
        return "health"

    def start_profile(self, folder: object) -> None:
        self.profile.append(("start", folder))

    def stop_profile(self) -> None:
        self.profile.append("stop")

    def shutdown(self) -> None:
        self.is_shut_down = True


def logprobs_of(token: int) -> TokenLogprobs:
    """The token itself, then two alternatives of which the second is the token again."""
    return TokenLogprobs([token, token + 1, token], [-0.5, -0.25, -0.5], [2, 1, 2])


@pytest.fixture(scope="session")
def fake_core() -> type[FakeCore]:
    return FakeCore


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """Ids 0 to 255 are bytes, 256 is ``<eos>``: a character beyond ASCII is several tokens."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    backend = Backend(models.BPE({char: byte for byte, char in bytes_to_unicode().items()}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<eos>", special=True)])
    return Tokenizer(backend, {"eos_token": "<eos>"}, {"default": CHAT_TEMPLATE})


@pytest.fixture(scope="session")
def char_tokenizer() -> Tokenizer:
    """One token a character of ``a`` to ``z`` and space; others have none."""
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    characters = "abcdefghijklmnopqrstuvwxyz "
    backend = Backend(models.BPE({char: i for i, char in enumerate(characters)}, []))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return Tokenizer(backend, {}, {})


MakeLLM = Callable[..., tuple[LLM, FakeCore]]


@pytest.fixture(scope="session")
def make_llm(byte_tokenizer: Tokenizer) -> MakeLLM:
    """`make_llm(script)`: an `LLM` over a core that answers each request with the script's tokens.

    A script is text, token ids, or a function from the engine request to token ids.
    """

    def make(
        script: str | Sequence[int] | Callable[[EngineRequest], Iterable[int]] = "ok" * 100,
        *,
        per_step: int = 1,
        tokenizer: Tokenizer | None = byte_tokenizer,
        **engine: Any,
    ) -> tuple[LLM, FakeCore]:
        if isinstance(script, str):
            script = list(script.encode())
        answer = script if callable(script) else lambda request: script
        core = FakeCore(answer, per_step=per_step)
        values = {
            "config": EngineConfig(),
            "vocab_size": 260,
            "max_model_len": 64,
            "eos_token_ids": (256,),
            "catalog": None,
            "preparer": None,
            "pooling": NO_POOLING,
        } | engine
        return LLM.from_engine(SimpleNamespace(core=core, tokenizer=tokenizer, **values)), core  # type: ignore[arg-type]

    return make
