"""What backends say of themselves: the table in the docs, and that saying it takes none of their libraries."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from vcore.plugins.specs import AttentionBackendSpec

DOCS = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
LIBRARIES = ("torch", "triton", "flash_attn", "flash_attn_interface", "xformers")
SPECS: list[AttentionBackendSpec] = [
    spec
    for point in entry_points(group="vcore")
    if point.module.startswith("vcore_backends.") and hasattr(plugin := point.load(), "vcore_attention_backends")
    for spec in plugin.vcore_attention_backends()
]
BY_NAME = {spec.name: spec for spec in SPECS}
WORDS = {
    "sliding_window": "sliding windows",
    "soft_cap": "soft cap",
    "non_causal": "non-causal",
    "mla": "latent attention",
}


def _rows() -> dict[str, list[str]]:
    section = DOCS.read_text(encoding="utf-8").partition("## Attention backends")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "| `" in line]
    return {name.strip("`"): cells for name, *cells in rows if name.startswith("`")}


def test_every_backend_has_a_row():
    assert set(_rows()) == set(BY_NAME)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_its_row_says_what_it_says(name: str):
    spec, (rank, requires, blocks, features, graphs) = BY_NAME[name], _rows()[name]
    capabilities = spec.capabilities
    assert rank == str(spec.rank)
    assert requires == ", ".join(f"`{line}`" for line in spec.requires)
    assert blocks == ", ".join(map(str, capabilities.block_sizes or ("any",)))
    assert {word for word in WORDS.values() if word in features} == {WORDS[name] for name in capabilities.features}
    assert graphs == ("no" if capabilities.graph_support == "none" else "yes")


def test_vcore_s_own_kernels_come_first_on_cuda_and_ranks_differ():
    ranks = {spec.name: spec.rank for spec in SPECS if spec.capabilities.features != {"mla"}}
    assert max(ranks, key=ranks.__getitem__) == "triton_paged"
    assert len(set(ranks.values())) == len(ranks)


def test_listing_them_imports_no_library():
    """A finder that comes first turns any such import into a failure, installed or not."""
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LIBRARIES}:
            raise AssertionError("imports " + name)
sys.meta_path.insert(0, Refuse())
from vcore.config import PluginsConfig
from vcore.plugins import PluginKind
from vcore.plugins.catalog import Catalog
from vcore.plugins.discovery import discover
entries = [entry for entry in discover(PluginsConfig()).entries if entry.kind == PluginKind.ATTENTION_BACKEND]
for entry in entries:
    print(entry.name, entry.status.value, entry.reason)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    listed = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert set(listed) == set(BY_NAME)
    assert not any(" broken " in line for line in listed.values()), run.stdout


@pytest.mark.parametrize("name", ["flash_attn", "flash_attn_3", "flash_attn_4", "xformers"])
def test_a_library_that_is_not_there_is_named_with_the_line_that_installs_it(name: str, monkeypatch):
    from importlib import metadata

    from vcore.plugins.distributions import requirement_problem

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    line = BY_NAME[name].requires[0]
    assert f"`pip install '{line}'`" in (requirement_problem(line) or "")
