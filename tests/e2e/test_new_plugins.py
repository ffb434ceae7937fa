"""What ``vcore plugins new`` writes does its work in an engine, as it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vcore import LLM, SamplingParams
from vcore.cli.main import run
from vcore.config import ChatConfig, PluginsConfig
from vcore.errors import RequestError
from vcore.interfaces import Tool
from vcore.plugins import discover
from vcore.server.chat_parser import parse_answer
from vcore.server.tool_calls import choose_chat_format

LLAMA = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": True, "model_type": "llama", "architectures": ["LlamaForCausalLM"],
    "eos_token_id": 1,
}  # fmt: skip
PROMPTS = [{"prompt_token_ids": list(range(start, start + 12))} for start in (3, 20, 3, 40)]
SMALL_CACHE = {"num_blocks": 9, "block_size": 4}


def write(folder: Path, kind: str, name: str) -> str:
    """The file of a new plugin."""
    assert run(["plugins", "new", kind, name, "--one-file", "--into", str(folder)]) == 0
    return str(folder / f"{name}.py")


@contextmanager
def engine(path: str, **config: Any) -> Iterator[LLM]:
    model = {"skip_tokenizer": True, **config.pop("model", {})}
    with LLM(model=path, device="cpu", progress=False, config={"model": model, **config}) as llm:
        yield llm


def greedy(llm: LLM, prompts: Any = PROMPTS, **params: Any) -> list[list[int]]:
    params = {"max_tokens": 8, "temperature": 0.0, "ignore_eos": True, **params}
    outputs = llm.generate(prompts, SamplingParams(**params))
    return [output.outputs[0].token_ids for output in outputs]


@pytest.fixture
def llama(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    return str(tmp_path)


def test_around_a_model(llama: str, tmp_path: Path) -> None:
    """Attention backend, scheduling and eviction policies and executor give the tokens of vcore's own."""
    log = tmp_path / "log.jsonl"
    kinds = ("attention_backend", "scheduling_policy", "eviction_policy", "executor", "observer")
    load = [write(tmp_path, kind, f"acme_{kind}") for kind in kinds]
    with engine(llama, model={"load_format": "dummy"}, cache=SMALL_CACHE) as llm:
        expected = greedy(llm) + greedy(llm)
    with engine(
        llama,
        model={"load_format": "dummy"},
        attention={"backend": "acme_attention_backend"},
        scheduler={"policy": {"name": "acme_scheduling_policy", "options": {"max_prompt_tokens": 12}}},
        cache={**SMALL_CACHE, "eviction": {"name": "acme_eviction_policy", "options": {"newest_first": True}}},
        executor="acme_executor",
        observability={"observers": [{"name": "acme_observer", "options": {"path": str(log)}}]},
        plugins={"load": load, "strict": True},
    ) as llm:
        assert greedy(llm) + greedy(llm) == expected
        with pytest.raises(RequestError, match="a prompt may have 12 tokens, got 13"):
            greedy(llm, {"prompt_token_ids": [3] * 13})
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {event["event"] for event in events} == {"finished"}
    assert len(events) >= 2 * len(PROMPTS)


def test_a_logits_processor(llama: str, tmp_path: Path) -> None:
    load = [write(tmp_path, "logits_processor", "acme")]
    with engine(llama, model={"load_format": "dummy"}, plugins={"load": load}) as llm:
        [plain] = greedy(llm, PROMPTS[:1])
        banned = {"name": "acme", "options": {"token_ids": [plain[0]]}}
        [other] = greedy(llm, PROMPTS[:1], logits_processors=banned)
        assert plain[0] not in other
        forced = {"name": "acme", "options": {"token_ids": [7], "bias": 1e6}}
        assert greedy(llm, PROMPTS[:1], logits_processors=forced) == [[7] * 8]


def test_parsers_of_a_chat_format(tmp_path: Path) -> None:
    """Named in the configuration, they read an answer."""
    load = [write(tmp_path, kind, f"acme_{kind}") for kind in ("tool_parser", "reasoning_parser")]
    catalog = discover(PluginsConfig(load=tuple(load)))
    named = ChatConfig(tool_parser="acme_tool_parser", reasoning_parser="acme_reasoning_parser")
    parser = choose_chat_format(named, catalog, None).new_parser("<reason>", [Tool(name="f")])
    answer = parse_answer(parser, 'so</reason>Yes.<call>{"name": "f", "arguments": {"a": 1}}</call>')
    assert (answer.reasoning, answer.content) == ("so", "Yes.")
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("f", '{"a": 1}')]


def test_a_model_with_its_source_and_loader(tmp_path: Path) -> None:
    """The bigram model, found by name and read from NumPy files, follows its largest logits."""
    load = [write(tmp_path, kind, f"acme{i}") for i, kind in enumerate(("model", "model_source", "weight_loader"))]
    folder = tmp_path / "root" / "small"
    folder.mkdir(parents=True)
    vocab_size = 8
    config = {"architectures": ["Acme0ForCausalLM"], "vocab_size": vocab_size, "hidden_size": vocab_size}
    config |= {"num_attention_heads": 1, "num_hidden_layers": 1, "max_position_embeddings": 32}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    np.save(folder / "embed_tokens.weight.npy", np.eye(vocab_size, dtype=np.float32))
    # Row j has its one in column j - 1: after token i comes i + 1.
    np.save(folder / "lm_head.weight.npy", np.roll(np.eye(vocab_size, dtype=np.float32), 1, axis=0))
    source = {"name": "acme1", "options": {"root": str(tmp_path / "root")}}
    model = {"load_format": "acme2", "source": source}
    with engine("acme1://small", model=model, plugins={"load": load}) as llm:
        prompts = [{"prompt_token_ids": [5, 2]}, {"prompt_token_ids": [6]}]
        assert greedy(llm, prompts, max_tokens=4) == [[3, 4, 5, 6], [7, 0, 1, 2]]
