"""A target that serves without any time passing, and keeps what it was asked for."""

from __future__ import annotations

import time

from vcore.bench.serve.record import RequestRecord
from vcore.bench.serve.request import LoadRequest
from vcore.bench.serve.target import TargetError, TargetInfo


class InstantTarget:
    """Every token comes at once; requests that want `failing` tokens fail."""

    def __init__(self, *, failing: int | None = None, max_model_len: int | None = None) -> None:
        self.asked: list[LoadRequest] = []
        self.entered = 0
        self.left = 0
        self._failing = failing
        self._max_model_len = max_model_len

    async def __aenter__(self) -> InstantTarget:
        self.entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left += 1

    def info(self) -> TargetInfo:
        return TargetInfo(name="instant", model="none", vocab_size=50, max_model_len=self._max_model_len)

    async def run(self, request: LoadRequest, record: RequestRecord) -> None:
        self.asked.append(request)
        if request.num_output_tokens == self._failing:
            raise TargetError("http_503", "full [of brackets]")
        for _ in range(request.num_output_tokens):
            record.add(time.monotonic(), 1)
        record.num_output_tokens = request.num_output_tokens
        record.num_prompt_tokens = len(request.token_ids or request.text or "")
