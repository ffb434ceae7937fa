"""The clients ``llm``, ``litellm`` and ``aiperf``, as their users install them, against ``vcore serve``.

They live in an environment of their own, which ``VCORE_TEST_CLIENTS`` names::

    python -m venv clients && clients/bin/pip install -r tests/clients/requirements.txt
    VCORE_TEST_CLIENTS=clients/bin pytest tests/clients
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from vcore.testing.server_process import ServerProcess

CLIENTS = os.environ.get("VCORE_TEST_CLIENTS")
NUM_REQUESTS, NUM_INPUT, NUM_OUTPUT = 8, 32, 12
pytestmark = pytest.mark.skipif(CLIENTS is None, reason="VCORE_TEST_CLIENTS names no environment with the clients")


@pytest.fixture(scope="module")
def server(smollm2_path: Path) -> Iterator[ServerProcess]:
    arguments = ["-m", str(smollm2_path), "--model-name", "smollm2", "--set", "cache.num_blocks=2048"]
    arguments += ["--set", "runtime.device=cpu", "--set", "runtime.num_threads=1", "--api-key", "sk-test"]
    with ServerProcess(arguments) as server:
        yield server


@pytest.fixture(scope="module")
def expected(server: ServerProcess) -> str:
    """What the model says to a greeting, greedily."""
    body = {"messages": [{"role": "user", "content": "Say hi"}], "temperature": 0, "max_tokens": 8}
    headers = {"Authorization": "Bearer sk-test"}
    response = httpx.post(f"{server.address}/v1/chat/completions", json=body, headers=headers, timeout=60)
    return str(response.json()["choices"][0]["message"]["content"])


def run(program: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    assert CLIENTS is not None
    command = [str(Path(CLIENTS).resolve() / program), *arguments]
    environment = {**os.environ, **env}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)


def test_llm(server: ServerProcess, expected: str, tmp_path: Path) -> None:
    described = f"- model_id: mine\n  model_name: smollm2\n  api_base: {server.address}/v1\n  api_key_name: mine\n"
    (tmp_path / "extra-openai-models.yaml").write_text(described)
    arguments = ["-m", "mine", "-o", "temperature", "0", "-o", "max_tokens", "8"]
    for streamed in ([], ["--no-stream"]):
        result = run("llm", *arguments, *streamed, "--key", "sk-test", "Say hi", LLM_USER_PATH=str(tmp_path))
        assert result.stdout.strip() == expected.strip(), result.stderr
    refused = run("llm", *arguments, "--key", "sk-wrong", "Say hi", LLM_USER_PATH=str(tmp_path))
    assert refused.returncode == 1
    assert "API key is wrong" in refused.stderr


LITELLM = """
import json, sys, litellm
from litellm import completion, text_completion
base = json.loads(sys.argv[1])
found = {}
whole = completion(**base)
found["whole"] = whole.choices[0].message.content
found["usage"] = [whole.usage.prompt_tokens, whole.usage.completion_tokens]
chunks = list(completion(**base, stream=True, stream_options={"include_usage": True}))
found["streamed"] = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
found["reasons"] = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
told = [c.usage for c in chunks if "usage" in c and c.usage]
found["streamed_usage"] = [[usage.prompt_tokens, usage.completion_tokens] for usage in told]
found["n"] = len(completion(**base, n=2).choices)
logprobs = completion(**base, logprobs=True, top_logprobs=2).choices[0].logprobs
found["logprobs"] = [entry["token"] if isinstance(entry, dict) else entry.token for entry in logprobs["content"]]
text = base | {"model": "text-completion-openai/smollm2", "prompt": "One two three"}
text.pop("messages")
found["text"] = text_completion(**text).choices[0].text
for name, wrong in (("bad", {"temperature": 1000}), ("missing", {"model": "openai/other"}), ("key", {"api_key": "no"})):
    try:
        completion(**base | wrong, num_retries=0)
    except Exception as error:
        found[name] = type(error).__name__
print("RESULT" + json.dumps(found))
"""


def test_litellm(server: ServerProcess, expected: str) -> None:
    base = {
        "model": "openai/smollm2",
        "api_base": f"{server.address}/v1",
        "api_key": "sk-test",
        "messages": [{"role": "user", "content": "Say hi"}],
        "temperature": 0,
        "max_tokens": 8,
    }
    result = run("python", "-c", LITELLM, json.dumps(base), LITELLM_LOCAL_MODEL_COST_MAP="True")
    assert "RESULT" in result.stdout, result.stderr[-3000:]
    found: dict[str, Any] = json.loads(result.stdout.partition("RESULT")[2])
    assert found["whole"] == found["streamed"] == expected
    assert "".join(found["logprobs"]) == expected
    assert found["reasons"] == ["length"]
    assert found["streamed_usage"] == [found["usage"]]
    assert found["usage"][1] == 8
    assert found["n"] == 2
    assert found["text"]
    assert found["bad"] == "BadRequestError"
    assert found["missing"] == "NotFoundError"
    assert found["key"] == "AuthenticationError"


def test_aiperf(server: ServerProcess, smollm2_path: Path, tmp_path: Path) -> None:
    [converted] = smollm2_path.glob("*.vcore")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(converted / name, tokenizer)
    arguments = ["--model", "smollm2", "--url", server.address, "--api-key", "sk-test", "--ui", "none"]
    arguments += ["--endpoint-type", "completions", "--streaming", "--concurrency", "4"]
    arguments += ["--request-count", str(NUM_REQUESTS), "--isl", str(NUM_INPUT), "--osl", str(NUM_OUTPUT)]
    arguments += ["--extra-inputs", "ignore_eos:true", "--tokenizer", str(tokenizer)]
    result = run("aiperf", "profile", *arguments, "--artifact-dir", str(tmp_path / "out"))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    report = json.loads((tmp_path / "out" / "profile_export_aiperf.json").read_text())
    assert report["is_complete"]
    assert report["error_summary"] == []
    assert report["request_count"]["avg"] == NUM_REQUESTS
    assert report["total_usage_prompt_tokens"]["avg"] == report["total_isl"]["avg"] == NUM_REQUESTS * NUM_INPUT
    assert report["total_usage_completion_tokens"]["avg"] == NUM_REQUESTS * NUM_OUTPUT
    # It counts by making tokens of the text again, which may give one fewer.
    assert abs(report["total_osl"]["avg"] - NUM_REQUESTS * NUM_OUTPUT) <= NUM_REQUESTS
