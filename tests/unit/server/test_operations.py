"""Models, tokens, embeddings, and what operators do to the engine."""

from __future__ import annotations

from typing import Any

import pytest

from vcore.version import __version__


def test_models_are_listed_by_every_name(make_server: Any) -> None:
    server = make_server(model_names=("one", "owner/two"))
    cards = server.get("/v1/models").json()
    assert [card["id"] for card in cards["data"]] == ["one", "owner/two"]
    assert cards["data"][0]["root"] == "scripted"
    assert cards["data"][0]["max_model_len"] == 256
    assert server.get("/v1/models/owner/two").json() == cards["data"][1]
    missing = server.get("/v1/models/three")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_the_version_is_told(server: Any) -> None:
    assert server.get("/version").json() == {"version": __version__}


def test_texts_become_tokens_and_back(server: Any) -> None:
    tokens = server.post("/tokenize", {"prompt": "hé", "return_token_strs": True}).json()
    assert tokens == {"count": 3, "max_model_len": 256, "tokens": [104, 195, 169], "token_strs": ["h", "Ã", "©"]}
    assert server.post("/detokenize", {"tokens": tokens["tokens"]}).json() == {"prompt": "hé"}
    assert server.post("/detokenize", {"tokens": [104, 256]}).json() == {"prompt": "h<eos>"}
    assert server.post("/detokenize", {"tokens": [104, 256], "skip_special_tokens": True}).json() == {"prompt": "h"}
    assert server.post("/tokenize", {"prompt": ""}).json()["tokens"] == []


def test_conversations_become_tokens_as_the_chat_has_them(server: Any) -> None:
    messages = [{"role": "user", "content": "hi"}]
    tokens = server.post("/tokenize", {"messages": messages}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": tokens}).json()["prompt"] == "<user>hi<assistant>"
    usage = server.post("/v1/chat/completions", {"messages": messages}).json()["usage"]
    assert usage["prompt_tokens"] == len(tokens)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, None),
        ("/tokenize", {"prompt": 1}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ("/detokenize", {"tokens": [260]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens"),
        ("/v1/embeddings", {"input": "a"}, "model"),
        ("/v1/embeddings", {}, "input"),
    ],
)
def test_what_is_wrong_is_named(server: Any, path: str, body: dict[str, Any], param: str | None) -> None:
    response = server.post(path, body)
    assert response.status_code == 400
    assert param is None or response.json()["error"]["param"] == param


def test_embeddings_are_refused_with_the_reason(server: Any) -> None:
    assert "no embeddings" in server.post("/v1/embeddings", {"input": ["a"]}).json()["error"]["message"]
    assert server.post("/v1/embeddings", {"input": "a", "model": "x"}).status_code == 404


@pytest.mark.parametrize("path", ["/start_profile", "/stop_profile", "/reset_prefix_cache"])
def test_operations_are_off_unless_enabled_or_behind_a_key(make_server: Any, path: str) -> None:
    refused = make_server().request("POST", path)
    assert refused.status_code == 403
    assert "--enable-" in refused.json()["error"]["message"]
    enabled = make_server(enable_profile=True, enable_reset=True)
    assert enabled.request("POST", path).status_code in (200, 409)
    keyed = make_server(api_keys=("k",))
    assert keyed.request("POST", path, headers={"Authorization": "Bearer k"}).status_code in (200, 409)
    assert keyed.request("POST", path).status_code == 401
    keyed.engine.status.state = "restarting"
    assert keyed.request("POST", path, headers={"Authorization": "Bearer k"}).status_code == 503


def test_a_profile_is_begun_and_ended_once(make_server: Any) -> None:
    server = make_server(enable_profile=True)
    assert server.request("POST", "/stop_profile").status_code == 409
    assert server.request("POST", "/start_profile").json() == {"folder": "profile"}
    again = server.request("POST", "/start_profile")
    assert again.status_code == 409
    assert "already" in again.json()["error"]["message"]
    assert server.request("POST", "/stop_profile").status_code == 200


def test_the_prefix_cache_is_forgotten(make_server: Any) -> None:
    assert make_server(enable_reset=True).request("POST", "/reset_prefix_cache").json() == {"reset": True}


def test_logits_processors_need_leave(make_server: Any) -> None:
    body = {"prompt": "a", "logits_processors": ["no-such-plugin"]}
    assert "--enable-logits-processors" in make_server().post("/v1/completions", body).json()["error"]["message"]
    allowed = make_server(enable_logits_processors=True)
    response = allowed.post("/v1/completions", body)
    assert response.status_code == 400
    assert "no-such-plugin" in response.json()["error"]["message"]
    for wrong in ([{"options": {}}], [{"name": "x", "more": 1}], [{}]):
        assert allowed.post("/v1/completions", body | {"logits_processors": wrong}).status_code == 400
