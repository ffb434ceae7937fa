"""A second real model, Gemma 3 270M: pulled by the command line, and token for token what transformers generates.

Its layers differ from SmolLM2's in all that makes a model hard to serve: five of six see a window of 512 tokens, the
others everything, with rotary embeddings of their own; norms stand around each sublayer and on queries and keys.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from vcore import LLM, RequestOutput, SamplingParams
from vcore.cli.main import run
from vcore.tokenizer import Tokenizer, load_tokenizer

NUM_TOKENS = 12
WINDOW = 512
CHUNK = 128
"""Tokens a step, so that prompts are computed in pieces and beside each other."""
SHORT = (
    "The capital of France is",
    "Water boils at",
    "Once upon a time, in a village by the sea,",
)
STORY = (
    "The keeper of the lighthouse had counted ships for thirty years. On the first evening of every month he wrote "
    "their number into a book, beside the weather and the price of oil, and on the last he read aloud to his cat what "
    "he had written. In the winter of the great storm there were no ships to count. "
)
ENDINGS = ("In spring, when the first sail came into sight, he", "His daughter, who lived in the town, often asked")
TEXTS = (
    "The capital of France is",
    "  two spaces,   three, and a tab\tand\n\n\nlines ",
    "Üben macht den Meister — naïve café №5",
    "日本語のテキスト, 한국어, العربية, हिन्दी",
    "🤗 👩‍👩‍👧 🏳️‍🌈 \U0001f9ff",
    "def f(x):\n    return x ** 2  # 3.14159\n",
    "a\x00b \x7f \u200b\ue000",
    "<b>bold</b> <start_of_turn>user\nhi<end_of_turn>",
)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What ``vcore pull`` did."""

    path: Path
    answer: dict[str, object]
    stderr: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What transformers generates from a prompt, and how likely it finds it."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


@pytest.fixture(scope="module")
def pulled() -> Pulled:
    """The model in the user's cache, fetched and converted if it is not there."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert run(["pull", "gemma3-270m", "--json"]) == 0
    answer = json.loads(out.getvalue())
    return Pulled(Path(answer["path"]), answer, err.getvalue())


@pytest.fixture(scope="module")
def converted(pulled: Pulled) -> Path:
    """The folder with float32 weights, configuration and tokenizer, as transformers reads them, too."""
    (folder,) = pulled.path.glob("*.gguf.vcore")
    return folder


@pytest.fixture(scope="module")
def tokenizer(converted: Path) -> Tokenizer:
    return load_tokenizer(converted)


@pytest.fixture(scope="module")
def expected(converted: Path, tokenizer: Tokenizer) -> list[Expected]:
    """By transformers, one prompt after another: three short ones, and two that are longer than the window."""
    from transformers import AutoModelForCausalLM

    story = tokenizer.encode(STORY * 8)[:WINDOW]
    long = [story + tokenizer.encode(ending, add_special_tokens=False) for ending in ENDINGS]
    model = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32).eval()
    made = [_generate(model, prompt) for prompt in [*map(tokenizer.encode, SHORT), *long]]
    del model
    gc.collect()  # a gigabyte, which the engine is about to take itself
    return made


@pytest.fixture(scope="module")
def llm(pulled: Pulled, expected: list[Expected]) -> Iterator[LLM]:
    config = {"cache": {"num_blocks": 512}, "scheduler": {"max_num_batched_tokens": CHUNK}}
    with LLM(model="gemma3-270m", device="cpu", max_model_len=1024, config=config) as made:
        yield made


def _generate(model: torch.nn.Module, prompt: list[int]) -> Expected:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=NUM_TOKENS,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = output.sequences[0, len(prompt) :].tolist()
    rows = torch.log_softmax(torch.cat(output.logits).float(), dim=-1)
    return Expected(prompt, tokens, rows[range(len(tokens)), tokens].tolist())


def _ask(llm: LLM, prompts: list[list[int]]) -> list[RequestOutput]:
    params = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=1)
    return llm.generate(prompts, params, use_tqdm=False)


def _assert_equal(outputs: list[RequestOutput], expected: list[Expected]) -> None:
    for output, wanted in zip(outputs, expected, strict=True):
        completion = output.outputs[0]
        assert completion.token_ids == wanted.tokens
        assert completion.logprobs is not None
        logprobs = [row[token].logprob for row, token in zip(completion.logprobs, wanted.tokens, strict=True)]
        assert logprobs == pytest.approx(wanted.logprobs, abs=1e-3)


def test_pull_names_the_terms(pulled: Pulled) -> None:
    licence = pulled.answer["licence"]
    assert isinstance(licence, dict)
    assert licence["name"] == "Gemma Terms of Use"
    assert licence["url"] in pulled.stderr
    assert "Gemma Terms of Use" in Path(licence["file"]).read_text(encoding="utf-8")


def test_known_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("The capital of France is") == [2, 818, 5279, 529, 7001, 563]
    assert tokenizer.encode("<start_of_turn>user\nhi<end_of_turn>\n") == [2, 105, 2364, 107, 2202, 106, 107]
    assert tokenizer.encode(" Hello  world 12") == [2, 26352, 138, 12392, 236743, 236770, 236778]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back_whole_and_piece_by_piece(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    stream = tokenizer.new_stream([tokenizer.bos_token_id or 0], skip_special_tokens=False)
    assert "".join([*map(stream.push, ids), stream.flush()]) == text


def test_english_is_sensible(llm: LLM, expected: list[Expected]) -> None:
    texts = [output.outputs[0].text for output in _ask(llm, [wanted.prompt for wanted in expected[:3]])]
    assert "France" in texts[0]
    assert "100 degrees Celsius" in texts[1]
    assert "there lived a man" in texts[2]


def test_greedy_tokens_are_equal_in_one_batch(llm: LLM, expected: list[Expected]) -> None:
    """Prompts in chunks, two of them beyond the window, beside each other and beside decoding."""
    llm.reset_prefix_cache()
    outputs = _ask(llm, [wanted.prompt for wanted in expected])
    assert max(len(wanted.prompt) for wanted in expected) > max(WINDOW, CHUNK)
    _assert_equal(outputs, expected)


def test_greedy_tokens_are_equal_after_prefix_hits(llm: LLM, expected: list[Expected]) -> None:
    prompts = [wanted.prompt for wanted in expected[3:]]
    _ask(llm, prompts)
    again = _ask(llm, prompts)
    assert all(output.num_cached_tokens >= WINDOW - CHUNK for output in again)
    _assert_equal(again, expected[3:])


def test_a_prefix_of_another_prompt_is_hit(llm: LLM, expected: list[Expected]) -> None:
    first, second = expected[3:]
    llm.reset_prefix_cache()
    _ask(llm, [first.prompt])
    (output,) = _ask(llm, [second.prompt])
    assert output.num_cached_tokens >= WINDOW - CHUNK
    _assert_equal([output], [second])
