"""Texts that are kept to a form: by the real model, and over every way to run a small one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from vcore import LLM, SamplingParams, StructuredOutput
from vcore.errors import RequestError
from vcore.outputs import RequestOutput

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
DATE = r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-[0-3][0-9]"
LARK = 'start: "say " WORD ("," WORD)*\nWORD: /[a-z]{2,5}/\n'
GBNF = 'root ::= "yes" ws "no"\nws ::= " "\n'
CALL = {
    "structures": [
        {"begin": '<tool_call>\n{"name": "f", "arguments": ', "schema": PERSON, "end": "}\n</tool_call>"},
    ],
    "triggers": ["<tool_call>"],
    "required": True,
    "most": 1,
}


def check_person(text: str) -> None:
    value = json.loads(text)
    assert set(value) == {"name", "age", "tags"}
    assert isinstance(value["name"], str)
    assert len(value["name"]) <= 12
    assert isinstance(value["age"], int)
    assert 0 <= value["age"] <= 150
    assert 1 <= len(value["tags"]) <= 3
    assert set(value["tags"]) <= {"red", "green"}


def params(form: dict[str, Any] | None, **values: Any) -> SamplingParams:
    structured = None if form is None else StructuredOutput(**form)
    return SamplingParams(**{"temperature": 0.0, "max_tokens": 120, "structured_output": structured, **values})


def texts(output: RequestOutput) -> list[str]:
    return [one.text for one in output.outputs]


def check_stopped(outputs: list[RequestOutput]) -> None:
    """Each text ended because its form was complete."""
    assert [one.finish_reason for output in outputs for one in output.outputs] == ["stop"] * sum(
        len(output.outputs) for output in outputs
    )


# The real model


@pytest.fixture(scope="module")
def mixed(smollm2: LLM) -> dict[str, RequestOutput]:
    """One batch of rows with forms, greedy and random, and rows without."""
    cases: dict[str, tuple[str, SamplingParams]] = {
        "plain": ("The capital of France is", SamplingParams(temperature=0.0, max_tokens=16)),
        "schema": ("A person as JSON:", params({"json_schema": PERSON})),
        "random": ("A person as JSON:", params({"json_schema": PERSON}, temperature=1.0, seed=3, n=3)),
        "object": ("An object with a name:", params({"json_object": True}, max_tokens=24)),
        "regex": ("Today's date, in ISO form, is", params({"regex": DATE})),
        "choice": ("Is water wet? Answer:", params({"choice": ["Yes, it is", "No", "é😀"]}, temperature=1.0, seed=1)),
        "lark": ("Greet them:", params({"grammar": LARK})),
        "gbnf": ("Well,", params({"grammar": GBNF})),
        "tag": ("Call the function f.", params({"structural_tag": CALL})),
        "after": ("Think, then answer.", params({"choice": ["four"], "after": "."}, max_tokens=200)),
    }
    outputs = smollm2.generate([prompt for prompt, _ in cases.values()], [one for _, one in cases.values()])
    return dict(zip(cases, outputs, strict=True))


def test_each_text_has_its_form(mixed: dict[str, RequestOutput]) -> None:
    check_person(texts(mixed["schema"])[0])
    for text in texts(mixed["random"]):
        check_person(text)
    assert len(set(texts(mixed["random"]))) > 1
    assert re.fullmatch(DATE, texts(mixed["regex"])[0])
    assert texts(mixed["choice"])[0] in ("Yes, it is", "No", "é😀")
    assert re.fullmatch(r"say [a-z]{2,5}(,[a-z]{2,5})*", texts(mixed["lark"])[0])
    assert texts(mixed["gbnf"]) == ["yes no"]
    assert texts(mixed["object"])[0].lstrip().startswith("{")
    begin, end = '<tool_call>\n{"name": "f", "arguments": ', "}\n</tool_call>"
    [call] = texts(mixed["tag"])
    assert call.startswith(begin)
    assert call.endswith(end)
    check_person(call.removeprefix(begin).removesuffix(end))
    check_stopped([mixed[name] for name in ("schema", "random", "regex", "choice", "gbnf", "tag")])


def test_a_form_after_a_marker_leaves_what_comes_before_free(mixed: dict[str, RequestOutput]) -> None:
    [text] = texts(mixed["after"])
    before, marker, after = text.partition(".")
    assert marker
    assert before
    assert after == "four"


def test_rows_without_a_form_are_as_if_alone(smollm2: LLM, mixed: dict[str, RequestOutput]) -> None:
    [alone] = smollm2.generate("The capital of France is", SamplingParams(temperature=0.0, max_tokens=16))
    assert mixed["plain"].outputs[0].token_ids == alone.outputs[0].token_ids


def test_a_stream_with_a_form_grows_to_the_same_text(smollm2: LLM, mixed: dict[str, RequestOutput]) -> None:
    *_, last = smollm2.stream("A person as JSON:", params({"json_schema": PERSON}))
    assert texts(last) == texts(mixed["schema"])


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"json_schema": {"type": "objec"}}, "objec"),
        ({"json_schema": False}, "false"),
        ({"json_schema": {"type": "string", "not": {}}}, "not"),
        ({"json_schema": {"$ref": "http://127.0.0.1:1/never"}}, "127.0.0.1"),
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"grammar": "start: nowhere"}, "nowhere"),
        ({"grammar": "root ::= ("}, "grammar"),
    ],
)
def test_what_cannot_be_enforced_is_refused_before_anything_runs(
    smollm2: LLM, form: dict[str, Any], message: str
) -> None:
    before = smollm2.stats()
    with pytest.raises(RequestError, match=message) as caught:
        smollm2.generate(["fine", "not fine"], [SamplingParams(), params(form)])
    assert caught.value.param == f"structured_output.{next(iter(form))}"
    assert smollm2.stats() == before


# A small model, over every way to run it


@pytest.fixture(scope="module")
def bytes_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose tokens are bytes, with a tokenizer."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: index for index, character in enumerate(alphabet)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>", "<other>"])
    folder = tmp_path_factory.mktemp("bytes-llama")
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}', encoding="utf-8")
    config = LlamaConfig(
        vocab_size=264,  # more rows than tokens, as models have them
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        eos_token_id=[256, 257],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


WAYS: dict[str, dict[str, Any]] = {
    "plain": {"cache": {"block_size": 16, "num_blocks": 400}},
    "two in flight": {"cache": {"block_size": 16, "num_blocks": 400}, "runtime": {"async_scheduling": True}},
    "preempted": {"cache": {"block_size": 4, "num_blocks": 40}, "scheduler": {"max_num_seqs": 8}},
    "preempted, two in flight": {
        "cache": {"block_size": 4, "num_blocks": 40},
        "scheduler": {"max_num_seqs": 8, "max_num_batched_tokens": 16},
        "runtime": {"async_scheduling": True},
    },
}
REQUESTS = [
    *(("ab", params({"json_schema": PERSON}, temperature=t, seed=i, n=2)) for i, t in enumerate((0.0, 1.0, 2.0))),
    ("xyz", params({"regex": DATE}, temperature=1.0, seed=9)),
    ("xyz", params(None, max_tokens=60, ignore_eos=True)),
    ("q", params({"choice": ["alpha", "alphabet", "beta"]}, temperature=1.0, seed=4, n=4)),
    ("q", params({"regex": "[a-z]{40}"}, temperature=1.0, seed=5)),
]


def run(folder: Path, tree: dict[str, Any]) -> tuple[list[RequestOutput], int]:
    compact = {"structured_output": {"name": "llguidance", "options": {"max_whitespace": 1}}}
    tree = {**tree, "sampling": compact, "runtime": {"device": "cpu", **tree.get("runtime", {})}}
    with LLM(model=str(folder), config=tree, progress=False) as llm:
        outputs = llm.generate([prompt for prompt, _ in REQUESTS], [one for _, one in REQUESTS])
        return outputs, llm.stats().preemptions


@pytest.fixture(scope="module")
def expected(bytes_llama: Path) -> list[RequestOutput]:
    return run(bytes_llama, WAYS["plain"])[0]


def test_a_random_model_writes_what_the_forms_demand(expected: list[RequestOutput]) -> None:
    for output in expected[:3]:
        for text in texts(output):
            check_person(text)
    assert re.fullmatch(DATE, texts(expected[3])[0])
    assert set(texts(expected[5])) <= {"alpha", "alphabet", "beta"}
    assert re.fullmatch("[a-z]{40}", texts(expected[6])[0])
    check_stopped([*expected[:4], *expected[5:]])
    for output in (*expected[:4], *expected[5:]):
        for one in output.outputs:
            ends = [token_id for token_id in one.token_ids if token_id >= 256]
            assert ends == one.token_ids[-1:], "an end of sequence stands at the end, and nowhere else"


@pytest.mark.parametrize("way", [way for way in WAYS if way != "plain"])
def test_the_same_tokens_however_it_is_run(bytes_llama: Path, expected: list[RequestOutput], way: str) -> None:
    outputs, num_preemptions = run(bytes_llama, WAYS[way])
    assert [[one.token_ids for one in output.outputs] for output in outputs] == [
        [one.token_ids for one in output.outputs] for output in expected
    ]
    assert (num_preemptions > 0) == way.startswith("preempted")


def test_without_a_tokenizer_or_without_a_plugin_a_form_is_refused(bytes_llama: Path) -> None:
    request = ({"prompt_token_ids": [3, 4]}, params({"regex": "a"}))
    tree: dict[str, Any] = {"runtime": {"device": "cpu"}, "cache": {"num_blocks": 20}}
    with (
        LLM(model=str(bytes_llama), config={**tree, "model": {"skip_tokenizer": True}}, progress=False) as llm,
        pytest.raises(RequestError, match="no tokenizer") as caught,
    ):
        llm.generate(*request)
    assert caught.value.param == "structured_output"
    with (
        LLM(model=str(bytes_llama), config={**tree, "sampling": {"structured_output": "none"}}, progress=False) as llm,
        pytest.raises(RequestError, match=r"sampling\.structured_output is none"),
    ):
        llm.generate(*request)


def test_the_configuration_sets_what_the_plugin_takes_beside_the_form(bytes_llama: Path) -> None:
    choice = {"name": "llguidance", "options": {"max_whitespace": 0}}
    tree = {"runtime": {"device": "cpu"}, "cache": {"num_blocks": 40}, "sampling": {"structured_output": choice}}
    with LLM(model=str(bytes_llama), config=tree, progress=False) as llm:
        request = params({"json_schema": PERSON}, temperature=2.0, n=4, seed=1, max_tokens=200)
        [output] = llm.generate(["ab"], request)
    for text in texts(output):
        check_person(text)
        assert not re.search(r'[{,:]\s|\s[}"]', re.sub(r'"(\\.|[^"\\])*"', '""', text))
