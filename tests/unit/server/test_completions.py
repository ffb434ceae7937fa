"""``/v1/completions``: forms of prompts, choices, logprobs, echo, streams that say what whole answers say."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from vcore.sampling_params import SamplingParams
from vcore.server.logprob_format import CompletionLogprobWriter
from vcore.server.protocol.common import SamplingFields


def joined(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What a client makes of a stream: a choice's text, lists of logprobs, and its one finish reason."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for piece in chunk["choices"]:
            assert len(chunk["choices"]) == 1
            choice = choices.setdefault(piece["index"], {"text": "", "logprobs": {}, "finish_reason": None})
            assert choice["finish_reason"] is None, "something came after the end"
            choice["text"] += piece["text"]
            choice["finish_reason"] = piece["finish_reason"]
            for name, values in (piece["logprobs"] or {}).items():
                choice["logprobs"].setdefault(name, []).extend(values)
    return choices


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "hi"},
        {"prompt": "hi", "n": 3, "max_tokens": 4},
        {"prompt": ["one", "two", "three"], "n": 2},
        {"prompt": "hi", "echo": True, "logprobs": 2},
        {"prompt": ["hi", "you"], "echo": True},
        {"prompt": [[104, 105], [104]], "echo": True, "logprobs": 0},
        {"prompt": "hi", "stop": "lo t", "logprobs": 1},
        {"prompt": "hi", "stop": ["zz", "there"], "include_stop_str_in_output": True},
        {"prompt": "hi", "max_tokens": 0, "echo": True, "logprobs": 1},
        {"prompt": "hi", "max_tokens": 0},
    ],
)
def test_a_stream_says_what_the_whole_answer_says(make_server: Any, scripted: Any, body: dict[str, Any]) -> None:
    server = make_server(scripted(script=lambda request: f"hello {'é€😀'[request.sample_index % 3]} there"))
    whole = server.post("/v1/completions", body).json()
    streamed = joined(server.stream("/v1/completions", body))
    assert sorted(streamed) == [choice["index"] for choice in whole["choices"]]
    for choice in whole["choices"]:
        got = streamed[choice["index"]]
        assert got["text"] == choice["text"]
        assert got["finish_reason"] == choice["finish_reason"]
        assert got["logprobs"] == (choice["logprobs"] or {})


def test_choices_are_numbered_prompt_by_prompt(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(script=lambda r: f"{bytes(r.prompt_token_ids).decode()}{r.sample_index}"))
    answer = server.post("/v1/completions", {"prompt": ["a", "b"], "n": 2}).json()
    assert [choice["text"] for choice in answer["choices"]] == ["a0", "a1", "b0", "b1"]


def test_usage_counts_each_prompt_once_and_every_sample(server: Any) -> None:
    answer = server.post("/v1/completions", {"prompt": ["abc", "de"], "n": 2, "max_tokens": 4}).json()
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 16,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


def test_a_stream_ends_with_the_usage_if_asked(server: Any) -> None:
    body = {"prompt": "abc", "max_tokens": 3, "stream_options": {"include_usage": True}}
    *pieces, last = server.stream("/v1/completions", body)
    assert all(piece["usage"] is None for piece in pieces)
    assert last["choices"] == []
    assert last["usage"] == server.post("/v1/completions", {"prompt": "abc", "max_tokens": 3}).json()["usage"]
    assert all("usage" not in chunk for chunk in server.stream("/v1/completions", {"prompt": "abc"}))


def test_continuous_usage_grows_with_the_text(server: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = server.stream("/v1/completions", {"prompt": "abc", "max_tokens": 3, "stream_options": options})
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 2, 3, 3]


def test_stop_strings_leak_no_part(make_server: Any, scripted: Any) -> None:
    server = make_server(scripted(script=lambda request: "abcabdabc STOP now"))
    for stop in ("abd", " STOP", "STOP n"):
        for chunk in (chunks := server.stream("/v1/completions", {"prompt": "x", "stop": stop})):
            assert stop[0] not in chunk["choices"][0]["text"] or stop == "abd"
        [choice] = joined(chunks).values()
        assert choice == {"text": "abcabdabc STOP now".partition(stop)[0], "logprobs": {}, "finish_reason": "stop"}
        answer = server.post("/v1/completions", {"prompt": "x", "stop": stop}).json()["choices"][0]
        assert answer["stop_reason"] == stop
        assert answer["text"] == choice["text"]


def test_logprobs_have_four_lists_and_offsets_into_the_text(server: Any) -> None:
    body = {"prompt": "hi", "max_tokens": 2, "logprobs": 1, "echo": True}
    [choice] = server.post("/v1/completions", body).json()["choices"]
    assert choice["text"] == "hihe"
    assert choice["logprobs"] == {
        "tokens": ["h", "i", "h", "e"],
        "token_logprobs": [None, -0.5, -0.5, -0.5],
        "top_logprobs": [None, {"j": -0.25, "i": -0.5}, {"i": -0.25, "h": -0.5}, {"f": -0.25, "e": -0.5}],
        "text_offset": [0, 1, 2, 3],
    }


def test_no_tokens_are_generated_or_counted_if_none_are_wanted(server: Any) -> None:
    answer = server.post("/v1/completions", {"prompt": "hi", "max_tokens": 0, "echo": True, "logprobs": 0}).json()
    assert answer["choices"][0]["text"] == "hi"
    assert answer["choices"][0]["logprobs"]["tokens"] == ["h", "i"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0


def test_parameters_reach_the_engine(server: Any) -> None:
    values = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "repetition_penalty": 1.5,
        "seed": 7,
        "stop_token_ids": [3],
        "ignore_eos": True,
        "min_tokens": 2,
        "max_tokens": 5.0,
        "allowed_token_ids": [1, 2.0],
        "bad_words": ["x"],
        "skip_special_tokens": False,
        "priority": -3,
        "tenant": "t",
        "ttft_target_s": 1.5,
        "itl_target_s": 0.1,
        "expected_tokens": 9,
        "cache_salt": "s",
        "cache_ttl": 60.0,
    }
    body = {"prompt": "a", "logit_bias": {"7": 3}, "user": "me", "unknown": {"fields": "pass"}, **values}
    assert server.post("/v1/completions", body).status_code == 200
    params = server.engine.served[0].params
    for name, value in values.items():
        got = getattr(params, name)
        assert (list(got) if isinstance(got, tuple) else got) == value, name
    assert params.logit_bias == {7: 3.0}


def test_every_parameter_of_the_engine_can_be_asked_for() -> None:
    apart = {"max_tokens", "logprobs", "prompt_logprobs", "detokenize", "structured_output"}
    assert set(SamplingParams.model_fields) - apart <= set(SamplingFields.model_fields)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [260]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "n": 129}, "n"),
        ({"prompt": "a", "temperature": "0.5"}, "temperature"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 2**40}, "max_tokens"),
        ({"prompt": "a", "seed": 2**63}, "seed"),
        ({"prompt": "a", "stop": ""}, "stop"),
        ({"prompt": "a", "stop": [1]}, "stop[0]"),
        ({"prompt": "a", "stop": ["x"] * 1025}, "stop"),
        ({"prompt": "a", "stop": "x" * 4097}, "stop"),
        ({"prompt": "a", "bad_words": ["x"] * 1025}, "bad_words"),
        ({"prompt": "a", "stop_token_ids": [1.5]}, "stop_token_ids"),
        ({"prompt": "a", "stop_token_ids": [-1]}, "stop_token_ids"),
        ({"prompt": "a", "allowed_token_ids": [1, True]}, "allowed_token_ids"),
        ({"prompt": "a", "allowed_token_ids": [2**31]}, "allowed_token_ids"),
        ({"prompt": "a", "allowed_token_ids": "12"}, "allowed_token_ids"),
        ({"prompt": "a", "logit_bias": dict.fromkeys(map(str, range(2**16 + 1)), 1)}, "logit_bias"),
        ({"prompt": "a", "logprobs": 101}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
        ({"prompt": "a", "logit_bias": {"9999": 1}}, "logit_bias"),
        ({"prompt": "a", "logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "a", "stream": "yes"}, "stream"),
        ({"prompt": "a", "min_tokens": 9, "max_tokens": 3}, "min_tokens"),
        ({"prompt": "a", "bad_words": [" "]}, "bad_words"),
        ({"prompt": [[1], [260]]}, "prompt"),
        ({"prompt": "a", "logits_processors": ["x"]}, "logits_processors"),
        ({"prompt": "a", "response_format": {"type": "xml"}}, "response_format.type"),
        ({"prompt": "a", "guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
        ({"prompt": "a", "stream": True, "n": 2, "echo": True, "logprobs": 1}, "n"),
    ],
)
def test_what_is_wrong_is_named(server: Any, body: dict[str, Any], param: str) -> None:
    response = server.post("/v1/completions", body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert "prompt_token_ids" not in error["message"]
    assert "Params" not in error["message"]


def test_a_prompt_beyond_the_context_has_its_own_code(server: Any) -> None:
    response = server.post("/v1/completions", {"prompt": "x" * 256})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    streamed = server.post("/v1/completions", {"prompt": "x" * 256, "stream": True})
    assert streamed.json() == response.json()


def test_unknown_models_are_not_found(make_server: Any) -> None:
    server = make_server(model_names=("one", "owner/two"))
    for body in ({"prompt": "a", "model": "three"}, {"prompt": "a", "model": "\ud800"}):
        response = server.request("POST", "/v1/completions", content=str(body).replace("'", '"').encode())
        assert response.status_code == 400  # no JSON is said to be sent
    response = server.post("/v1/completions", {"prompt": "a", "model": "three"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    for name in ("one", "owner/two"):
        assert server.post("/v1/completions", {"prompt": "a", "model": name}).json()["model"] == name
    assert server.post("/v1/completions", {"prompt": "a"}).json()["model"] == "one"


def test_many_logprobs_are_written_beside_the_event_loop(
    make_server: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(scripted(max_model_len=1000))
    threads: list[threading.Thread] = []
    write = CompletionLogprobWriter.write

    def recorded(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return write(*arguments)

    monkeypatch.setattr(CompletionLogprobWriter, "write", recorded)
    body = {"echo": True, "logprobs": 1, "max_tokens": 1}
    for prompt in ("short", "long " * 100):
        [choice] = server.post("/v1/completions", body | {"prompt": prompt}).json()["choices"]
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"] == prompt + "h"
    assert [thread is threading.main_thread() for thread in threads] == [True, False]
