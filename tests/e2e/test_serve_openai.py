"""The unmodified ``openai`` client against ``vcore serve`` with a real model, and the offline engine beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from vcore import LLM, SamplingParams
from vcore.testing.server_process import ServerProcess

QUESTION = [{"role": "user", "content": "Name three colors, in one line."}]
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def server(smollm2_path: Path) -> Iterator[ServerProcess]:
    arguments = ["-m", str(smollm2_path), "--model-name", "smollm2", "--set", "cache.num_blocks=2048"]
    arguments += ["--set", "runtime.device=cpu", "--set", "runtime.num_threads=1"]
    with ServerProcess(arguments) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def chat(client: openai.OpenAI, **options: Any) -> Any:
    options = {"messages": QUESTION, "max_completion_tokens": 16, "temperature": 0.0} | options
    return client.chat.completions.create(model="smollm2", **options)


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert model.id == "smollm2"
    assert client.models.retrieve("smollm2") == model


def test_chat_is_what_the_offline_engine_says(client: openai.OpenAI, smollm2: LLM) -> None:
    [expected] = smollm2.chat(QUESTION, SamplingParams(max_tokens=16, temperature=0.0))
    answer = chat(client)
    assert answer.choices[0].message.content == expected.outputs[0].text
    assert answer.choices[0].finish_reason == expected.outputs[0].finish_reason
    assert answer.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert answer.usage.completion_tokens == len(expected.outputs[0].token_ids)


def test_a_stream_says_the_same_with_usage(client: openai.OpenAI) -> None:
    whole = chat(client)
    *chunks, last = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason]
    assert reasons == [whole.choices[0].finish_reason]
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.prompt_tokens_details.cached_tokens > 0


def test_the_clients_own_reader_of_streams_understands(client: openai.OpenAI) -> None:
    text = chat(client).choices[0].message.content
    options: dict[str, Any] = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "stop": text[8:12]}
    with client.chat.completions.stream(**options) as stream:  # which takes an answer that was cut for an error
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text.partition(text[8:12])[0]


def test_stop_strings_leak_nothing(client: openai.OpenAI) -> None:
    text = client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=12, temperature=0).choices[0].text
    stop = text[4:8]
    stopped = client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=12, temperature=0, stop=stop)
    assert stopped.choices[0].text == text.partition(stop)[0]
    assert stopped.choices[0].finish_reason == "stop"
    options: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "stop": [stop], "stream": True}
    streamed = client.completions.create(model="smollm2", **options)
    assert "".join(chunk.choices[0].text for chunk in streamed) == stopped.choices[0].text


def test_logprobs_of_both_endpoints_agree(client: openai.OpenAI) -> None:
    old = client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2, echo=True)
    lists = old.choices[0].logprobs
    assert lists is not None
    assert "".join(lists.tokens or ()) == old.choices[0].text
    assert (lists.token_logprobs or [0])[0] is None
    assert len(lists.tokens or ()) == len(lists.token_logprobs or ()) == len(lists.text_offset or ())
    for token, logprob, top in list(zip(lists.tokens, lists.token_logprobs, lists.top_logprobs, strict=True))[-4:]:
        assert top[token] == logprob == max(top.values())
    new = chat(client, logprobs=True, top_logprobs=2, max_completion_tokens=4).choices[0]
    assert "".join(entry.token for entry in new.logprobs.content) == new.message.content
    for entry in new.logprobs.content:
        assert bytes(entry.bytes).decode() == entry.token
        assert entry.top_logprobs[0].token == entry.token
        assert len(entry.top_logprobs) == 2


def test_samples_and_seeds(client: openai.OpenAI) -> None:
    def texts(seed: int) -> list[str]:
        answer = chat(client, n=3, seed=seed, temperature=1.0)
        return [choice.message.content for choice in answer.choices]

    first = texts(1)
    assert len(set(first)) == 3
    assert texts(1) == first
    assert texts(2) != first


def test_extensions_reach_the_engine(client: openai.OpenAI) -> None:
    extra = {"ignore_eos": True, "min_p": 0.1, "top_k": 5, "priority": 1, "cache_salt": "mine"}
    answer = chat(client, max_completion_tokens=40, extra_body=extra)
    assert answer.usage.completion_tokens == 40
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    prompts = [PROMPT, "One two three"]
    several = client.completions.create(model="smollm2", prompt=prompts, max_tokens=2, temperature=0)
    assert [choice.index for choice in several.choices] == [0, 1]


def test_structured_output(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"color": {"enum": ["red", "green"]}, "size": {"type": "integer", "maximum": 9}},
        "required": ["color", "size"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}
    answer = json.loads(chat(client, response_format=form, max_completion_tokens=60).choices[0].message.content)
    assert answer["color"] in ("red", "green")
    assert answer["size"] <= 9
    choice = chat(client, extra_body={"guided_choice": ["yes", "no"]}).choices[0].message.content
    assert choice in ("yes", "no")


def test_responses(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="smollm2", input=QUESTION, max_output_tokens=16, temperature=0)  # type: ignore[arg-type]
    assert whole.output_text == chat(client).choices[0].message.content
    options: dict[str, Any] = {"model": "smollm2", "input": QUESTION, "max_output_tokens": 16, "temperature": 0}
    with client.responses.stream(**options) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == whole.output_text


@pytest.mark.parametrize(
    ("options", "error", "param"),
    [
        ({"temperature": 1000}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"model": "gpt-9"}, openai.NotFoundError, "model"),
        ({"messages": [{"role": "user", "content": "x " * 20_000}]}, openai.BadRequestError, "messages"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}, None, None),
    ],
)
def test_errors_are_the_clients_own(client: openai.OpenAI, options: Any, error: Any, param: str | None) -> None:
    body = {"model": "smollm2", "messages": QUESTION} | options
    for stream in (False, True):
        with pytest.raises(error or openai.BadRequestError) as caught:
            client.chat.completions.create(**body, stream=stream)
        assert param is None or caught.value.param == param


def test_many_at_once_are_as_alone(server: ServerProcess) -> None:
    """Greedy streams beside each other, a third of which is cut off in the middle."""

    async def one(client: openai.AsyncOpenAI, number: int) -> str | None:
        options: dict[str, Any] = {"prompt": f"Number {number % 5}:", "max_tokens": 12, "temperature": 0}
        stream = await client.completions.create(model="smollm2", stream=True, **options)
        text = ""
        async for chunk in stream:
            text += chunk.choices[0].text
            if number % 3 == 2:
                await stream.close()
                return None
        return text

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="none", timeout=120) as client:
            alone = [await one(client, number) for number in (0, 1, 3, 4, 12)]
            expected = dict(zip((0, 1, 3, 4, 2), alone, strict=True))
            texts = await asyncio.gather(*(one(client, number) for number in range(30)))
            assert all(text in (None, expected[number % 5]) for number, text in enumerate(texts))
            assert texts.count(None) == 10

    asyncio.run(run())
    assert server.get("/health")["failed_steps"] == 0
