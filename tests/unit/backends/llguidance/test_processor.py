"""`LLGuidanceProcessor` by hand: rows that come, go on, leave and come back, among rows without a form."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from vcore_backends.llguidance.processor import LLGuidanceProcessor

from vcore.errors import RequestError
from vcore.interfaces.logits import LogitsProcessorContext, ProcessorRow
from vcore.structured_output import StructuredOutput
from vcore.tokenizer import Tokenizer

EOS, OTHER_EOS, VOCAB = 256, 257, 260


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Ids 0 to 255 are bytes, 256 and 257 end a text."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    backend = tokenizers.Tokenizer(models.BPE({char: byte for byte, char in bytes_to_unicode().items()}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>", "<other>"])
    return Tokenizer(backend, {"eos_token": "<eos>"}, {})


def make(tokenizer: Tokenizer | None, **context: Any) -> LLGuidanceProcessor:
    values = {"vocab_size": VOCAB, "max_num_seqs": 8, "eos_token_ids": (EOS, OTHER_EOS), **context}
    return LLGuidanceProcessor(
        options=None, context=LogitsProcessorContext(device=torch.device("cpu"), tokenizer=tokenizer, **values)
    )


@pytest.fixture
def processor(tokenizer: Tokenizer) -> LLGuidanceProcessor:
    return make(tokenizer)


def row(processor: LLGuidanceProcessor, number: int, output: Sequence[int] = (), **form: Any) -> ProcessorRow:
    arguments = StructuredOutput(**form).model_dump(exclude_defaults=True) if form else {}
    return ProcessorRow(
        row=number,
        prompt_token_ids=[1],
        output_token_ids=list(output),
        arguments=arguments,
        prepared=processor.prepare(arguments),
    )


def allowed(processor: LLGuidanceProcessor, *rows: ProcessorRow) -> list[set[int]]:
    logits = processor.apply(torch.zeros(len(rows), VOCAB), rows)
    return [set(torch.nonzero(one == 0).flatten().tolist()) for one in logits]


def ids(text: str) -> set[int]:
    return set(text.encode())


def test_each_row_is_masked_by_its_own_form_and_rows_without_are_left_alone(processor: LLGuidanceProcessor) -> None:
    rows = [
        row(processor, 4, choice=["ab", "cd"]),
        row(processor, 1),
        row(processor, 2, [ord("c")], choice=["ab", "cd"]),
        row(processor, 0, regex="[0-9]{2}"),
    ]
    processor.on_batch_change(rows, [])
    assert allowed(processor, *rows) == [ids("ac"), set(range(VOCAB)), ids("d"), ids("0123456789")]
    assert allowed(processor, rows[1]) == [set(range(VOCAB))]
    rows[0].output_token_ids.append(ord("a"))  # type: ignore[attr-defined]
    assert allowed(processor, rows[3], rows[0]) == [ids("0123456789"), ids("b")]


def test_the_end_comes_where_the_form_is_complete_and_nothing_after(processor: LLGuidanceProcessor) -> None:
    output: list[int] = []
    one = row(processor, 0, choice=["ab", "abc"])
    one.output_token_ids = output
    processor.on_batch_change([one], [])
    seen = []
    for token in (*b"abc", EOS, EOS, 5):
        seen.append(allowed(processor, one)[0])
        output.append(token)
    ends = {EOS, OTHER_EOS}
    assert [found & ends for found in seen[:2]] == [set(), set()]
    assert seen[2] == ids("c") | ends
    assert seen[3] <= ends
    assert seen[3]
    assert seen[4] <= ends, "a token of a step that was in flight changes nothing"


def test_a_row_that_resumes_is_where_its_output_is(processor: LLGuidanceProcessor) -> None:
    one = row(processor, 3, b"ab", regex="abc*d")
    processor.on_batch_change([one], [])
    before = allowed(processor, one)
    other = row(processor, 3, b"x", regex="xy")
    processor.on_batch_change([other], [3])
    assert allowed(processor, other) == [ids("y")]
    processor.on_batch_change([one], [3])
    assert allowed(processor, one) == before == [ids("cd")]


def test_a_row_that_was_not_prepared_is_prepared_when_it_comes(processor: LLGuidanceProcessor) -> None:
    one = row(processor, 0, choice=["a"])
    one.prepared = None
    processor.on_batch_change([one], [])
    assert allowed(processor, one) == [ids("a")]


def test_samples_of_one_request_do_not_share_their_place(processor: LLGuidanceProcessor) -> None:
    prepared = processor.prepare({"choice": ("ab", "cd")})
    rows = [
        ProcessorRow(row=i, prompt_token_ids=[], output_token_ids=list(text), arguments={}, prepared=prepared)
        for i, text in enumerate((b"a", b"c", b""))
    ]
    processor.on_batch_change(rows, [])
    assert allowed(processor, *rows) == [ids("b"), ids("d"), ids("ac")]


def test_a_text_that_left_its_form_fails_its_row_alone(processor: LLGuidanceProcessor) -> None:
    good, bad = row(processor, 0, choice=["ab"]), row(processor, 1, b"z", choice=["ab"])
    processor.on_batch_change([good, bad], [])
    with pytest.raises(ValueError, match="cannot be kept to its form"):
        allowed(processor, good, bad)
    with pytest.raises(ValueError, match="cannot be kept to its form"):
        allowed(processor, bad)
    assert allowed(processor, good) == [ids("a")]


SPREADING = "start: s\ns: {}\n{}".format(
    " | ".join(f'"a" s{i}' for i in range(60)), "".join(f's{i}: "a" s | "a" s{i} | "a"\n' for i in range(60))
)
"""A grammar that a hundred ways lead through, more with each letter, and none to an end."""


def test_a_form_that_becomes_too_complex_is_its_requests_fault_alone(processor: LLGuidanceProcessor) -> None:
    good, bad = row(processor, 0, choice=["ab"]), row(processor, 1, b"a" * 40, grammar=SPREADING)
    processor.on_batch_change([good, bad], [])
    for _ in range(2):
        with pytest.raises(RequestError, match=r"cannot be enforced any further, after 40 tokens: .*2000") as caught:
            allowed(processor, bad)
        assert caught.value.param == "structured_output.grammar"
    assert allowed(processor, good) == [ids("a")]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"regex": "(a"}, "unclosed group"),
        ({"grammar": "root ::= ("}, "cannot be read"),
        ({"json_schema": False}, "schema is false"),
        ({"json_schema": {"type": "a" * 5000}}, "cannot be enforced"),
    ],
)
def test_a_bad_form_is_refused_in_one_line(processor: LLGuidanceProcessor, form: dict[str, Any], message: str) -> None:
    arguments = StructuredOutput(**form).model_dump(exclude_defaults=True)
    with pytest.raises(RequestError, match=message) as caught:
        processor.prepare(arguments)
    assert caught.value.param == f"structured_output.{next(iter(form))}"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_the_model_lacks_is_said(tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="no tokenizer"):
        make(None).prepare({"regex": "a"})
    with pytest.raises(RequestError, match="no end of sequence"):
        make(tokenizer, eos_token_ids=()).prepare({"regex": "a"})


def test_requests_are_prepared_by_several_threads_at_once(tokenizer: Tokenizer) -> None:
    processor = make(tokenizer)
    together = threading.Barrier(4, timeout=20)
    made: dict[int, Any] = {}

    def prepare(number: int) -> None:
        together.wait()
        made[number] = processor.prepare({"choice": (chr(97 + number),)})

    threads = [threading.Thread(target=prepare, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [
        ProcessorRow(row=i, prompt_token_ids=[], output_token_ids=[], arguments={}, prepared=made[i]) for i in range(4)
    ]
    processor.on_batch_change(rows, [])
    assert allowed(processor, *rows) == [ids(chr(97 + number)) for number in range(4)]


def test_a_vocabulary_that_is_smaller_than_the_tokenizers_is_masked_as_far_as_it_goes(tokenizer: Tokenizer) -> None:
    processor = make(tokenizer, vocab_size=200)
    one = row(processor, 0, regex="[a-c]")
    processor.on_batch_change([one], [])
    logits = processor.apply(torch.zeros(1, 200), [one])
    assert set(torch.nonzero(logits[0] == 0).flatten().tolist()) == ids("abc")
