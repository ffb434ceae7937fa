"""`LLM` over a core that plays back tokens: forms of input, order, errors before anything runs, life and death."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import pytest

from vcore.engine.request import EngineRequest
from vcore.errors import EngineError, RequestError, RequestTooLargeError
from vcore.sampling_params import SamplingParams

LONG = SamplingParams(max_tokens=4)


def echo(request: EngineRequest) -> list[int]:
    """The prompt's tokens in capitals, over and over, the longest prompt last to end."""
    return [token - 32 for token in request.prompt_token_ids] * 50


def test_outputs_come_in_the_order_of_the_prompts(make_llm: Any) -> None:
    llm, core = make_llm(echo)
    params = [SamplingParams(max_tokens=count) for count in (5, 1, 3)]
    outputs = llm.generate(["abc", [100, 101], {"prompt": "xyz"}], params)
    assert [output.outputs[0].text for output in outputs] == ["ABCAB", "D", "XYZ"]
    assert [output.prompt for output in outputs] == ["abc", None, "xyz"]
    assert all(output.finished for output in outputs)
    assert core.num_steps == 5, "all ran in one batch"
    assert not core.has_unfinished


@pytest.mark.parametrize("prompts", ["abc", {"prompt": "abc"}, [97, 98, 99], {"prompt_token_ids": [97, 98, 99]}])
def test_a_single_prompt_gives_a_list_of_one(make_llm: Any, prompts: Any) -> None:
    llm, _ = make_llm(echo)
    [output] = llm.generate(prompts, LONG)
    assert output.outputs[0].text == "ABCA"


def test_no_prompts_give_no_outputs(make_llm: Any) -> None:
    llm, core = make_llm()
    assert llm.generate([]) == []
    assert core.num_steps == 0


def test_without_parameters_the_defaults_hold(make_llm: Any) -> None:
    llm, core = make_llm()
    llm.generate("a")
    assert core.added[0].params == SamplingParams()


def test_samples_of_a_prompt_come_in_one_output(make_llm: Any) -> None:
    llm, _ = make_llm(lambda request: [97 + request.sample_index] * 9)
    outputs = llm.generate(["p", "q"], SamplingParams(n=3, max_tokens=2))
    assert [[sample.text for sample in output.outputs] for output in outputs] == [["aa", "bb", "cc"]] * 2


def test_a_stop_string_ends_the_request_in_the_core(make_llm: Any) -> None:
    llm, core = make_llm("one two three")
    [output] = llm.generate("p", SamplingParams(stop=["two", "three"], max_tokens=13))
    assert output.outputs[0].text == "one "
    assert core.finished == [(core.added[0].request_id, 7, "two")]
    assert core.num_steps == 7


BAD_CALLS: list[tuple[Any, Any, str]] = [
    (["ok", "", "ok"], None, r"^prompt 1 of 3 \(counted from 0\): the prompt is empty"),
    (["ok", [1, 999]], None, r"^prompt 1 of 2 .*has 999 at position 1"),
    (["ok", 5], None, r"^prompt 1 of 2 .*cannot be of type int"),
    ([[1], [2] * 64], None, r"^prompt 1 of 2 .*has 64 tokens, and at most 63 fit"),
    (["a", "b"], [SamplingParams(), SamplingParams(logit_bias={500: 1})], "^prompt 1 of 2 .*logit_bias has 500"),
    (["a", "b"], [SamplingParams()] * 3, "2 prompts came with 3 sampling_params"),
    (["a"], [], "1 prompts came with 0 sampling_params"),
    (["a"], [{"n": 1}], r"sampling_params\[0\] must be a SamplingParams, got dict"),
    ("a", {"temperature": 1.0}, "must be a SamplingParams or a list of them, got dict"),
    ("", None, "^the prompt is empty"),
]


@pytest.mark.parametrize(("prompts", "params", "message"), BAD_CALLS, ids=[message for _, _, message in BAD_CALLS])
def test_one_wrong_prompt_keeps_all_out_of_the_engine(make_llm: Any, prompts: Any, params: Any, message: str) -> None:
    llm, core = make_llm()
    with pytest.raises(RequestError, match=message):
        llm.generate(prompts, params)
    assert (core.added, core.num_steps) == ([], 0)
    assert llm.generate("next", LONG)[0].finished


def test_a_prompt_that_the_core_refuses_takes_the_others_of_its_call_with_it(make_llm: Any) -> None:
    llm, core = make_llm()

    def refuse(request: EngineRequest) -> None:
        if len(request.prompt_token_ids) > 3:
            raise RequestTooLargeError("needs 9 blocks, there are 4")

    core.refuse = refuse
    with pytest.raises(RequestTooLargeError, match=r"^prompt 2 of 3 .*: needs 9 blocks"):
        llm.generate(["a", "b", "long"], SamplingParams(n=2))
    assert len(core.aborted) == len(core.added) == 4
    assert not core.has_unfinished
    assert llm.generate("a", LONG)[0].finished


def test_a_failed_request_is_an_output_and_a_warning_and_harms_no_other(
    make_llm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    llm, core = make_llm("fine")
    core.errors["request-1"] = "the processor raised"
    with caplog.at_level(logging.WARNING):
        outputs = llm.generate(["a", "b"], SamplingParams(max_tokens=4))
    assert [output.outputs[0].finish_reason for output in outputs] == ["length", "error"]
    assert outputs[1].outputs[0].stop_reason == "the processor raised"
    assert "prompt 1 (sample 0) failed: the processor raised" in caplog.text


def test_chat_renders_the_template(make_llm: Any) -> None:
    llm, core = make_llm()
    question = [{"role": "user", "content": "hi"}]
    [output] = llm.chat(question, LONG)
    assert output.prompt == "<user>hi<assistant>"
    assert core.added[0].prompt_token_ids == list(b"<user>hi<assistant>")
    answers = llm.chat([question, [{"role": "system", "content": [{"type": "text", "text": "be"}]}, *question]], LONG)
    assert [output.prompt for output in answers] == ["<user>hi<assistant>", "<system>be<user>hi<assistant>"]
    assert llm.chat(question, LONG, add_generation_prompt=False)[0].prompt == "<user>hi"
    assert llm.chat(question, LONG, chat_template="X{{ messages[0].content }}")[0].prompt == "Xhi"


BAD_CHATS: list[tuple[Any, str]] = [
    ("hi", "a conversation is a list of messages.*got str"),
    ([], "the conversation is empty"),
    ([[], []], r"prompt 0 of 2 .*the conversation is empty"),
    (["hi"], r"messages\[0\] must be a dictionary, got str"),
    ([{"content": "x"}], r"messages\[0\] needs a role"),
    ([{"role": "user"}], r"messages\[0\] needs text as its content, got NoneType"),
    ([{"role": "user", "content": 3}], "got int"),
    ([{"role": "user", "content": "a\udc80"}], r"content of messages\[0\] is not valid Unicode"),
    ([{"role": "user", "content": [{"type": "image"}]}], "a part of type 'image'; only text is served"),
    ([[{"role": "user", "content": "x"}], "y"], "prompt 1 of 2 .*a list of messages, got str"),
]


@pytest.mark.parametrize(("messages", "message"), BAD_CHATS, ids=[message for _, message in BAD_CHATS])
def test_bad_conversations(make_llm: Any, messages: Any, message: str) -> None:
    llm, core = make_llm()
    with pytest.raises(RequestError, match=message):
        llm.chat(messages)
    assert core.added == []


def test_without_a_tokenizer_ids_go_in_and_come_out(make_llm: Any) -> None:
    llm, _ = make_llm("ab", tokenizer=None)
    [output] = llm.generate([1, 2], SamplingParams(max_tokens=2))
    assert (output.outputs[0].text, output.outputs[0].token_ids) == ("", [97, 98])
    for use in (llm.get_tokenizer, lambda: llm.encode("a"), lambda: llm.chat([{"role": "user", "content": "a"}])):
        with pytest.raises(RequestError, match="no tokenizer"):
            use()


def test_encode_and_decode(make_llm: Any) -> None:
    llm, _ = make_llm()
    assert llm.encode("hé") == [104, 195, 169]
    assert llm.decode([104, 256, 195, 169]) == "hé"
    assert llm.decode([104, 256], skip_special_tokens=False) == "h<eos>"


def test_what_the_engine_is(make_llm: Any) -> None:
    llm, _ = make_llm()
    assert (llm.vocab_size, llm.max_model_len, llm.config.runtime.seed) == (260, 64, 0)
    assert llm.reset_prefix_cache()
    assert (llm.stats(), llm.health()) == ("stats", "health")


def test_a_profile_goes_into_a_folder(make_llm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    llm, core = make_llm()
    with pytest.raises(EngineError, match="call start_profile first"):
        llm.stop_profile()
    assert llm.start_profile() == tmp_path / "vcore_profile"
    with pytest.raises(EngineError, match=r"being taken already, into .*vcore_profile"):
        llm.start_profile()
    assert llm.stop_profile() == tmp_path / "vcore_profile"
    assert llm.start_profile("a/b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    llm.stop_profile()
    folder = tmp_path / "vcore_profile"
    assert core.profile == [("start", folder), "stop", ("start", tmp_path / "a" / "b"), "stop"]


def test_a_profile_needs_a_folder(make_llm: Any, tmp_path: Path) -> None:
    llm, core = make_llm()
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EngineError, match=r"folder of the profile cannot be made: .*file"):
            llm.start_profile(folder)
    assert core.profile == []
    llm.start_profile(tmp_path)


def test_a_profile_that_could_not_start_is_not_being_taken(make_llm: Any, tmp_path: Path) -> None:
    llm, core = make_llm()

    def fail(folder: Path) -> None:
        raise OSError("no profiler")

    core.start_profile = fail
    with pytest.raises(OSError, match="no profiler"):
        llm.start_profile(tmp_path)
    with pytest.raises(EngineError, match="no profile is being taken"):
        llm.stop_profile()


def test_closing(make_llm: Any) -> None:
    llm, core = make_llm()
    with llm as same:
        assert same is llm
        assert not llm.closed
    assert core.is_shut_down
    assert llm.closed
    llm.close()
    for use in (lambda: llm.generate("a"), lambda: llm.stream("a"), llm.reset_prefix_cache, llm.get_tokenizer):
        with pytest.raises(EngineError, match="this LLM was closed"):
            use()


def test_what_is_dropped_is_closed(make_llm: Any) -> None:
    llm, core = make_llm()
    llm.generate("a", LONG)
    del llm
    gc.collect()
    assert core.is_shut_down


def test_an_llm_that_could_not_be_made_can_be_dropped(recwarn: pytest.WarningsRecorder) -> None:
    from vcore.engine.llm import LLM
    from vcore.errors import ConfigError

    with pytest.raises(ConfigError, match="max_modle_len"):
        LLM(model="x", max_modle_len=5)
    gc.collect()
    assert not [warning for warning in recwarn if "__del__" in str(warning.message)]


def test_two_in_one_process(make_llm: Any) -> None:
    first, _ = make_llm("aaaa")
    second, _ = make_llm("bbbb")
    streams = zip(first.stream("p", LONG), second.stream("p", LONG), strict=True)
    *_, (one, other) = streams
    assert (one.outputs[0].text, other.outputs[0].text) == ("aaaa", "bbbb")
