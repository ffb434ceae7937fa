"""The unmodified ``openai`` client against ``vcore serve`` with a model for embeddings, and the engine offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from vcore import LLM
from vcore.testing.server_process import ServerProcess, write_byte_checkpoint

TEXTS = ["the sky is blue", "water boils at a hundred degrees", "é", "a" * 200]
SETTINGS = {"cache.num_blocks": 512, "runtime.device": "cpu", "runtime.num_threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that says that it takes the mean, and normalises."""
    folder = write_byte_checkpoint(tmp_path_factory.mktemp("embedder"), max_model_len=256)
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in paths.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[np.ndarray]:
    with LLM(model=folder, progress=False, **SETTINGS) as llm:
        return [output.embedding for output in llm.embed(TEXTS, progress=False) if output.embedding is not None]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    arguments = ["-m", str(folder), "--model-name", "tiny"]
    for key, value in SETTINGS.items():
        arguments += ["--set", f"{key}={value}"]
    with ServerProcess(arguments) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def vectors(answer: Any) -> list[list[float]]:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.embedding for item in answer.data]


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["as_it_asks_by_itself", "float"])
def test_vectors_are_those_of_the_offline_engine(
    client: openai.OpenAI, expected: list[np.ndarray], options: dict[str, Any]
) -> None:
    answer = client.embeddings.create(model="tiny", input=TEXTS, **options)
    np.testing.assert_allclose(vectors(answer), expected, atol=1e-5)
    num_tokens = sum(len(text.encode()) for text in TEXTS)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens, answer.model) == (num_tokens, num_tokens, "tiny")


def test_one_text_token_ids_and_fewer_dimensions(client: openai.OpenAI, expected: list[np.ndarray]) -> None:
    [one] = vectors(client.embeddings.create(model="tiny", input=TEXTS[0]))
    [ids] = vectors(client.embeddings.create(model="tiny", input=list(TEXTS[0].encode())))
    np.testing.assert_allclose([one, ids], [expected[0]] * 2, atol=1e-5)
    [few] = vectors(client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=5))
    np.testing.assert_allclose(few, expected[0][:5] / np.linalg.norm(expected[0][:5]), atol=1e-5)


def test_many_texts_beside_conversations(client: openai.OpenAI) -> None:
    """Three hundred texts and eight texts that are generated, all at once: neither changes the other."""
    texts = [f"text {number} " * (number % 7 + 1) for number in range(300)]
    ask = {"model": "tiny", "prompt": "once upon", "max_tokens": 12, "temperature": 0}
    alone = client.completions.create(**ask).choices[0].text  # type: ignore[call-overload]
    with ThreadPoolExecutor(9) as pool:
        embedded = pool.submit(lambda: vectors(client.embeddings.create(model="tiny", input=texts)))
        written = [pool.submit(lambda: client.completions.create(**ask).choices[0].text) for _ in range(8)]  # type: ignore[call-overload]
        assert [one.result() for one in written] == [alone] * 8
        found = embedded.result()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    [again] = vectors(client.embeddings.create(model="tiny", input=texts[77]))
    np.testing.assert_allclose(found[77], again, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "param"),
    [({"input": ""}, "input"), ({"input": "a" * 257}, "input"), ({"input": "a", "dimensions": 33}, "dimensions")],
)
def test_what_is_wrong_is_named(client: openai.OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="tiny", **options)
    assert caught.value.param == param


def test_they_are_counted(server: ServerProcess, client: openai.OpenAI) -> None:
    client.embeddings.create(model="tiny", input=TEXTS)
    lines = httpx.get(f"{server.address}/metrics", timeout=30).text.splitlines()
    counts = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert counts["vcore:request_prompt_tokens_count"] >= len(TEXTS)
    assert counts["vcore:request_prompt_tokens_count"] - counts["vcore:time_to_first_token_seconds_count"] >= len(TEXTS)
