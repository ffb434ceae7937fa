"""The worked example of docs/write_a_policy.md: the page against the code, and its commands as a reader runs them."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from example_reader import INSTALL, Reader, commands_of, named_blocks  # the path comes first

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "write_a_policy.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "plugins" / "vcore-adaptive"
COMMANDS = commands_of(PAGE)
BEGIN = ["vcore", "plugins", "new", "scheduling_policy", "adaptive"]
ONE_FILE, ROUTING_FILE = "newest_first.py", "sticky.py"

ROUTING_CASE = """
from pathlib import Path
from vcore.testing import RoutingPolicyContract

class TestSticky(RoutingPolicyContract):
    policy = "sticky"
    plugins = (Path("sticky.py"),)
"""

SMALLER = {
    "--num-requests": "60",
    "--rate": "60",
    "--num-blocks": "40",
    "--waiting": "30",
}
"""What the page's measurements are cut down to."""
QUICK = ["--num-requests", "8", "--cached-blocks", "8", "--steps", "5", "--eviction-blocks", "200"]
"""Further options of `bench overhead`."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Beside the folder lie the one file of the first section, and two traces in the form of those that are named."""
    desk = tmp_path_factory.mktemp("reader")
    for name in (ONE_FILE, ROUTING_FILE):
        (desk / name).write_text(dict(named_blocks(PAGE))[name], encoding="utf-8")
    rng = random.Random(0)
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for second in range(60):
        rows.append(f"2023-11-16 18:17:{second:02d}.0000000,{rng.randint(500, 4000)},{rng.randint(5, 40)}")
    (desk / "AzureLLMInferenceTrace_code.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    lines = []
    for number in range(60):
        ids = [0, *range(100 * (number % 7) + 1, 100 * (number % 7) + 4), 1000 + number]
        lines.append({"timestamp": 100 * number, "input_length": 2500, "output_length": 20, "hash_ids": ids})
    (desk / "conversation_trace.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return Reader(desk / "adaptive", desk / "site")


def smaller(words: list[str]) -> list[str]:
    """The command, with less to do."""
    found = [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return found + QUICK if found[1:3] == ["bench", "overhead"] else found


@pytest.fixture(scope="module")
def ran(reader: Reader) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each command of the page came to, in their order. All of them have worked."""
    results: dict[str, subprocess.CompletedProcess[str]] = {}
    for words in COMMANDS:
        line = shlex.join(words)
        assert line not in results, "a command stands twice"
        if words == INSTALL:
            # By now everything is written: the page's files are filled in.
            shutil.rmtree(reader.folder / "vcore_adaptive")
            shutil.copytree(EXAMPLE, reader.folder, dirs_exist_ok=True)
            results[line] = reader.install()
        elif words == ["pytest"]:
            results[line] = reader.run(words)
        else:
            results[line] = reader.run(smaller(words), cwd=reader.folder.parent)
        assert results[line].returncode == 0, f"{line}\n{results[line].stdout}\n{results[line].stderr}"
    return results


def result_of(ran: dict[str, subprocess.CompletedProcess[str]], *words: str) -> list[str]:
    """What was printed by the commands that have these words."""
    return [result.stdout for line, result in ran.items() if set(words) <= set(shlex.split(line))]


def test_every_block_of_code_stands_in_the_example() -> None:
    named = named_blocks(PAGE)
    others = PAGE.count("```sh") + PAGE.count("```yaml")
    assert PAGE.count("```") == 2 * (len(named) + others), "a block of code without the name of its file"
    whole = set()
    for path, code in named:
        if path not in (ONE_FILE, ROUTING_FILE):
            text = (EXAMPLE / path).read_text(encoding="utf-8")
            assert code in text, path
            whole |= {path} if code == text else set()
    package = {f"vcore_adaptive/{name}.py" for name in ("plugin", "options", "scheduling_policy", "eviction_policy")}
    assert whole == package


def test_every_test_of_the_contracts_is_described() -> None:
    from vcore.testing import EvictionPolicyContract, RoutingPolicyContract, SchedulingPolicyContract
    from vcore.testing.policy_case import PolicyCase

    for contract in (SchedulingPolicyContract, EvictionPolicyContract, RoutingPolicyContract):
        tests = {name for name in vars(contract) if name.startswith("test_")} - {"test_an_empty_cache_needs_no_victims"}
        assert len(tests) > 5
        assert not [name for name in tests if f"`{name}`" not in PAGE]
    assert not [name for name in ("plugins", "options", "tight_options") if not hasattr(PolicyCase, name)]


def test_the_sizes_that_costs_are_compared_at_are_those_of_the_contracts() -> None:
    from vcore.testing import eviction_contract, scheduling_contract

    for contract in (scheduling_contract, eviction_contract):
        assert re.search(rf"with {contract._FEW}( \w+)? and with {contract._MANY:,} ", PAGE), contract


def test_every_method_of_the_contracts_is_described() -> None:
    from vcore.interfaces import EvictionPolicy, QueueingPolicy, ReplicaView, RoutingPolicy, SchedulingPolicy

    kinds = (SchedulingPolicy, QueueingPolicy, EvictionPolicy, RoutingPolicy, ReplicaView)
    names = {name for kind in kinds for name in vars(kind)}
    public = [name for name in names if not name.startswith("_")]
    assert not [name for name in public if f"`{name}`" not in PAGE and f"`{name}(" not in PAGE]


def test_the_start_that_is_written_has_the_same_files(tmp_path: Path, reader: Reader) -> None:
    reader.site.mkdir(exist_ok=True)
    found = Reader(tmp_path / "adaptive", tmp_path / "site").run(BEGIN, cwd=tmp_path)
    assert found.returncode == 0
    written = {str(file.relative_to(tmp_path / "adaptive")) for file in (tmp_path / "adaptive").rglob("*.*")}
    assert not [name for name in written if not (EXAMPLE / name).exists()]


def test_one_file_is_compared_beside_our_own(ran: dict[str, subprocess.CompletedProcess[str]]) -> None:
    [checked] = result_of(ran, "check", "./newest_first.py")
    assert re.search(r"(?m)^ok\s+scheduling_policy/newest_first\b", checked)
    [compared] = result_of(ran, "compare", "./newest_first.py")
    assert {"fcfs", "newest_first"} <= set(re.findall(r"\w+", compared))


def test_the_routing_policy_is_compared_and_passes_its_contract(
    ran: dict[str, subprocess.CompletedProcess[str]], reader: Reader
) -> None:
    [compared] = result_of(ran, "compare", "./sticky.py")
    assert {"least_loaded", "sticky"} <= set(re.findall(r"\w+", compared))
    desk = reader.folder.parent
    (desk / "test_sticky.py").write_text(ROUTING_CASE, encoding="utf-8")
    found = reader.run(["pytest", "-q", "-p", "no:cacheprovider", "test_sticky.py"], cwd=desk)
    assert found.returncode == 0, found.stdout


def test_the_distribution_is_found_and_compared_beside_our_own(
    ran: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    for address in ("scheduling_policy/adaptive_lifo", "eviction_policy/arc"):
        [checked] = result_of(ran, "check", address)
        assert re.search(rf"(?m)^ok\s+{address}@vcore-adaptive$", checked)
    [compared] = result_of(ran, "compare", "adaptive_lifo")
    assert {"fcfs", "adaptive_lifo", "goodput"} <= set(re.findall(r"\w+", compared))
    [replayed] = result_of(ran, "--cache-only", "arc")
    assert {"lru", "slru", "s3fifo", "arc"} <= set(re.findall(r"\w+", replayed))


def test_its_own_tests_pass(ran: dict[str, subprocess.CompletedProcess[str]]) -> None:
    summary = ran["pytest"].stdout
    assert re.search(r"\b[1-9]\d* passed", summary)
    assert not re.search(r"failed|error|skipped", summary)


def test_an_engine_takes_the_configuration_that_the_page_ends_with(
    reader: Reader, ran: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    (reader.folder / "engine.yaml").write_text(re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE)[0], encoding="utf-8")
    found = reader.run(["vcore", "config", "validate", "--portable", "--config", "engine.yaml", "--json"])
    assert found.returncode == 0, found.stdout + found.stderr


def test_it_runs_in_an_engine(
    ran: dict[str, subprocess.CompletedProcess[str]], reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(reader.site))
    from vcore.bench.overhead import null_engine
    from vcore.bench.waiting_load import WaitingLoad

    chosen = {"scheduler.policy": "adaptive_lifo", "cache.eviction": "arc", "plugins.strict": True}
    with null_engine(4, 8, 400, {**chosen, "cache.num_blocks": 200}) as engine:
        load = WaitingLoad(engine.core, 64)
        load.fill(12)
        load.run(150)
        assert load.num_added > 12  # some ended
        assert engine.core.stats().waiting
        assert engine.core.faults == ()
