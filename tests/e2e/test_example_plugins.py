"""The worked example of docs/add_a_model.md: the page against the code, and its commands as a reader runs them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from example_reader import INSTALL, Reader, commands_of, named_blocks  # the path comes first

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_a_model.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "plugins" / "vcore-granite"
COMMANDS = commands_of(PAGE)
BEGIN = ["vcore", "plugins", "new", "model", "granite"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    desk = tmp_path_factory.mktemp("reader")
    return Reader(desk / "granite", desk / "site")


@pytest.fixture(scope="module")
def ran(reader: Reader) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each command of the page came to, in their order. All of them have worked."""
    results: dict[str, subprocess.CompletedProcess[str]] = {}
    for words in COMMANDS:
        if words == BEGIN:
            result = reader.run(words, cwd=reader.folder.parent)
            shutil.rmtree(reader.folder / "vcore_granite")  # it is written: the page's files are filled in
            shutil.copytree(EXAMPLE, reader.folder, dirs_exist_ok=True)
        else:
            result = reader.install() if words == INSTALL else reader.run(words)
        assert result.returncode == 0, f"{shlex.join(words)}\n{result.stdout}\n{result.stderr}"
        results[shlex.join(words[:3])] = result
    return results


def test_every_block_of_code_stands_in_the_example():
    named = named_blocks(PAGE)
    assert PAGE.count("```") == 2 * (len(named) + PAGE.count("```sh")), "a block of code without the name of its file"
    for path, code in named:
        assert code in (EXAMPLE / path).read_text(encoding="utf-8"), path
    whole = {path for path, code in named if code == (EXAMPLE / path).read_text(encoding="utf-8")}
    assert whole == {"vcore_granite/model.py", "vcore_granite/plugin.py", "tests/test_granite.py"}


def test_every_argument_that_the_page_names_exists():
    """In the table of blocks: ``Block(argument=)``."""
    from inspect import signature

    from vcore import layers

    named = re.findall(r"`([A-Z]\w+)\(([\w=, \".]+)\)`", PAGE)
    assert len(named) > 10
    for block, arguments in named:
        known = signature(getattr(layers, block).__init__).parameters
        assert not [name for name in re.findall(r"(\w+)=", arguments) if name not in known], block


def test_the_start_that_is_written_has_the_same_files(tmp_path: Path, reader: Reader):
    reader.site.mkdir(exist_ok=True)
    assert reader.run(BEGIN, cwd=tmp_path).returncode == 0
    written = {str(file.relative_to(tmp_path / "granite")) for file in (tmp_path / "granite").rglob("*.*")}
    missing = [name for name in written if not (EXAMPLE / name).exists()]
    assert not missing


def test_it_is_found_as_an_installed_distribution(ran: dict[str, subprocess.CompletedProcess[str]]):
    assert re.search(r"(?m)^ok\s+model/granite@vcore-granite$", ran["vcore plugins check"].stdout)
    checked = ran["vcore models check"].stdout
    assert "tiny-granite can be served" in checked
    assert re.search(r"(?m)^plugin\s+model/granite@vcore-granite$", checked)


def test_its_own_tests_pass(ran: dict[str, subprocess.CompletedProcess[str]]):
    summary = ran["pytest"].stdout
    assert re.search(r"\b[1-9]\d* passed", summary)
    assert not re.search(r"failed|error|skipped", summary)


def test_it_generates_what_transformers_does(reader: Reader, ran: dict[str, subprocess.CompletedProcess[str]]):
    from transformers import AutoModelForCausalLM

    greedy = ["--temperature", "0", "--repetition-penalty", "1", "--max-tokens", "8", "--ignore-eos"]
    result = reader.run(["vcore", "generate", "Hello", "--model", "tiny-granite", *greedy, "--json"])
    (output,) = json.loads(result.stdout)["outputs"]
    prompt = torch.tensor([output["prompt_token_ids"]])
    reference = AutoModelForCausalLM.from_pretrained(reader.folder / "tiny-granite")
    expected = reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=8, eos_token_id=None
    )
    assert output["outputs"][0]["token_ids"] == expected[0, prompt.shape[1] :].tolist()
