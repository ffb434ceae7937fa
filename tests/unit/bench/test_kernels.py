"""The benchmark of kernels: what it times, what it counts, and what it says of backends that it cannot time."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vcore.bench.kernel_cases import CPU_CASES, DEVICE_CASES, KernelCase, parse_cases
from vcore.bench.kernel_layers import LatentLayer, PlainLayer, TimedLayer
from vcore.bench.kernel_timer import KernelTimer, Launches
from vcore.bench.kernels import measure_kernels
from vcore.cli.main import run
from vcore.config import load_config
from vcore.errors import ConfigError, PluginNotFoundError

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
PLAIN = PlainLayer(num_heads=4, num_kv_heads=2, head_dim=8)

PLUGIN = """
from vcore.interfaces.attention import AttentionBackend, AttentionLayer
from vcore.plugins import AttentionBackendSpec, AttentionCapabilities, hookimpl

class Layer(AttentionLayer):
    def __init__(self, context):
        self.context = context

    def forward(self, q, k, v, layer_cache, plan, out=None):
        assert out.shape == q.shape
        assert layer_cache.shape[1:] == (2, self.context.block_size, *k.shape[1:])
        table = plan.block_table
        assert sorted(table.flatten().tolist()) == list(range(1, len(layer_cache)))
        assert plan.seq_lens.tolist() == [self.context.max_model_len] * self.context.max_num_seqs
        assert len(q) == plan.num_tokens <= self.context.max_num_batched_tokens
        {forward}
        return out

class Backend(AttentionBackend):
    def __init__(self, *, options, context):
        self.context = context

    def build_layer(self, spec):
        return Layer(self.context)

    def plan(self, metadata):
        return metadata

    @classmethod
    def unsupported_reasons(cls, context, layers):
        {reasons}

@hookimpl
def vcore_attention_backends():
    capabilities = AttentionCapabilities(devices=("cpu",), dtypes=("float32",), head_dims=(8,), block_sizes=(4,))
    return [AttentionBackendSpec(name="mine", load={load!r}, api="1.0", rank=99, capabilities=capabilities)]
"""


def measure(layer: TimedLayer = PLAIN, tree: dict[str, Any] | None = None, **chosen: Any) -> dict[str, Any]:
    chosen = {"cases": "decode:2x9,prefill:2x5+3", "pool_bytes": 1, "seconds": 0.0} | chosen
    return measure_kernels(load_config({"runtime": {"device": "cpu"}} | (tree or {}), {}), layer=layer, **chosen)


def plugin(folder: Path, *, forward: str = "pass", reasons: str = "return ()", load: str = ":Backend") -> Path:
    path = folder / "mine.py"
    load = f"mine{load}" if load.startswith(":") else load
    path.write_text(PLUGIN.format(forward=forward, reasons=reasons, load=load), encoding="utf-8")
    return path


def with_plugin(path: Path) -> dict[str, Any]:
    return {"plugins": {"load": [str(path)]}}


# Cases


def test_a_case_is_written_as_it_is_read() -> None:
    text = "decode:64x2048,decode:1x1,prefill:4x4096,prefill:2x1024+3072"
    cases = parse_cases(text.replace(",", " , "))
    assert ",".join(case.name for case in cases) == text
    assert cases[0] == KernelCase(num_requests=64, query_len=1, seq_len=2048)
    assert cases[3] == KernelCase(num_requests=2, query_len=1024, seq_len=4096)


@pytest.mark.parametrize("text", [CPU_CASES, DEVICE_CASES])
def test_the_cases_without_an_option_can_be_read(text: str) -> None:
    cases = parse_cases(text)
    assert {case.is_decode for case in cases} == {True, False}


@pytest.mark.parametrize(
    "text", ["", "decode", "decode:4", "decode:0x4", "decode:4x0", "decode:4x8+8", "mixed:1x2", "prefill:1x-2"]
)
def test_a_malformed_case_is_named_with_what_is_expected(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--cases: found .*, expected decode:ROWSxTOKENS") as caught:
        parse_cases(f"decode:1x2,{text}")
    assert repr(text) in str(caught.value)


def test_a_prefill_of_one_token_is_called_a_decode() -> None:
    with pytest.raises(ConfigError, match="write decode:2x10"):
        parse_cases("prefill:2x1+9")


# What is counted


def test_bytes_and_operations_of_plain_attention() -> None:
    decode, prefill = parse_cases("decode:64x2048,prefill:2x3+5")
    layer = PlainLayer(num_heads=32, num_kv_heads=8, head_dim=128)
    assert layer.bytes_read(decode, 2) == 64 * 2048 * 2 * 8 * 128 * 2
    # The first query sees 6 keys, the second 7, the third 8: a product with the key, and one with the value.
    assert layer.operations(prefill) == 2 * (6 + 7 + 8) * 32 * (2 * 128 + 2 * 128)


def test_bytes_and_operations_of_latent_attention() -> None:
    decode, prefill = parse_cases("decode:3x100,prefill:1x4")
    layer = LatentLayer(num_heads=16)
    assert layer.bytes_read(decode, 2) == 3 * 100 * 576 * 2
    assert layer.operations(prefill) == (1 + 2 + 3 + 4) * 16 * (2 * 192 + 2 * 128)


def test_sets_of_inputs_fill_the_pool() -> None:
    timer = KernelTimer(CPU, pool_bytes=1000, seconds=0)
    assert [timer.num_sets(size) for size in (5000, 400, 100, 1)] == [2, 3, 10, 256]


def test_every_set_is_launched_equally_often() -> None:
    launched: list[int] = []
    timing = KernelTimer(CPU, pool_bytes=1, seconds=0).time(Launches(launched.append, 3), capture=True)
    assert not timing.captured
    assert timing.microseconds > 0
    assert launched[0] == 0  # to warm up
    assert launched[1:] == [0, 1, 2] * 3 * 6  # 9 launches a sample, 5 samples after one


# What comes of it


def test_a_row_for_each_backend_block_size_and_case() -> None:
    result = measure(backends=["torch_sdpa"], block_sizes=[4, 16])
    assert (result["device"], result["device_name"], result["dtype"]) == ("cpu", None, "float32")
    assert result["layer"]["num_kv_heads"] == 2
    assert [(row["backend"], row["block_size"], row["case"]) for row in result["kernels"]] == [
        ("torch_sdpa", size, case) for size in (4, 16) for case in ("decode:2x9", "prefill:2x5+3")
    ]
    for decode, prefill in zip(result["kernels"][::2], result["kernels"][1::2], strict=True):
        assert decode["us"] * decode["tb_per_s"] * 1e6 == pytest.approx(2 * 9 * 2 * 2 * 8 * 4)
        assert prefill["us"] * prefill["tflop_per_s"] * 1e6 == pytest.approx(2 * (6 + 7 + 8 + 4 + 5) * 4 * 4 * 8)
        assert decode["tflop_per_s"] is prefill["tb_per_s"] is None
        assert decode["captured"] is prefill["captured"] is False
        assert decode["error"] is prefill["error"] is None
    assert result["unusable"] == result["ops"] == []


def test_latent_attention_is_timed_in_both_forms() -> None:
    rows = measure(LatentLayer(num_heads=2), backends=["torch_sdpa"])["kernels"]
    assert [row["error"] for row in rows] == [None, None]
    assert rows[0]["tb_per_s"] > 0
    assert rows[1]["tflop_per_s"] > 0


def test_operations_are_timed_on_request() -> None:
    rows = measure(backends=["torch_sdpa"], cases="decode:1x2", ops=True)["ops"]
    assert not [row for row in rows if row["error"] or not row["us"] or not row["tb_per_s"]]
    assert {row["op"] for row in rows} == {
        "rms_norm",
        "add_rms_norm",
        "silu_and_mul",
        "qk_norm_rope_write_",
        "choose_and_record",
        "fused_experts",
        "linear",
    }


def test_every_usable_backend_is_timed_the_highest_rank_first(tmp_path: Path) -> None:
    result = measure(tree=with_plugin(plugin(tmp_path)))
    assert list(dict.fromkeys(row["backend"] for row in result["kernels"])) == ["mine", "torch_sdpa"]
    assert {row["block_size"] for row in result["kernels"] if row["backend"] == "mine"} == {16}
    assert not [row for row in result["kernels"] if row["error"]]
    assert all(row["reasons"] for row in result["unusable"])
    assert {"triton_paged", "triton_mla"} <= {row["backend"] for row in result["unusable"]}


# What cannot be timed


def test_an_unknown_backend_is_named_with_those_there_are() -> None:
    with pytest.raises(PluginNotFoundError, match=r"'torch_spda'; did you mean 'torch_sdpa'\?"):
        measure(backends=["torch_spda"])


def test_an_unknown_dtype_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="--dtype: found 'int8', expected one of bfloat16"):
        measure(dtype="int8")


@pytest.mark.parametrize(
    ("layer", "chosen", "reason"),
    [
        (PlainLayer(num_heads=2, num_kv_heads=1, head_dim=16), {}, "serves head dimensions 8, not 16"),
        (PLAIN, {"dtype": "float16"}, "computes in float32, not in float16"),
        (PLAIN, {"block_sizes": [6]}, "needs blocks of a multiple of 4 tokens, not of 6"),
        (LatentLayer(num_heads=1), {}, "does not list mla"),
    ],
)
def test_what_a_backend_does_not_list_is_its_reason(
    tmp_path: Path, layer: TimedLayer, chosen: dict[str, Any], reason: str
) -> None:
    result = measure(layer, with_plugin(plugin(tmp_path)), backends=["mine"], **chosen)
    assert result["unusable"] == [{"backend": "mine", "reasons": [reason]}]
    assert result["kernels"] == []


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ("return [f'up to 8 tokens, not {context.max_model_len}']", "up to 8 tokens, not 9"),
        ("raise RuntimeError('no driver')", "raised RuntimeError when asked for reasons against it: no driver"),
    ],
)
def test_a_backend_s_own_reasons_are_told_once(tmp_path: Path, reasons: str, told: str) -> None:
    tree = with_plugin(plugin(tmp_path, reasons=reasons))
    result = measure(tree=tree, backends=["mine", "torch_sdpa"], block_sizes=[4, 8])
    [row] = result["unusable"]
    assert told in row["reasons"][0]
    assert {row["backend"] for row in result["kernels"]} == {"torch_sdpa"}


@pytest.mark.parametrize("names", [["mine"], []])
def test_a_backend_whose_code_is_missing_is_listed(tmp_path: Path, names: list[str]) -> None:
    result = measure(tree=with_plugin(plugin(tmp_path, load="mine:Nothing")), backends=names, cases="decode:1x2")
    [row] = [row for row in result["unusable"] if row["backend"] == "mine"]
    assert "cannot be imported" in row["reasons"][0]


@pytest.mark.parametrize("names", [["mine"], []])
def test_a_backend_that_lacks_a_package_is_listed(tmp_path: Path, names: list[str]) -> None:
    path = plugin(tmp_path)
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace("rank=99", 'requires=("no-such-package",)'), encoding="utf-8")
    result = measure(tree=with_plugin(path), backends=names, cases="decode:1x2")
    [row] = [row for row in result["unusable"] if row["backend"] == "mine"]
    assert "no-such-package" in row["reasons"][0]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("RuntimeError('[a]\\nsecond line')", "RuntimeError: [a]"),
        ("__import__('torch').OutOfMemoryError('9 GiB')", "OutOfMemoryError: 9 GiB; give a smaller case"),
    ],
)
def test_a_case_that_fails_is_told_in_its_row(tmp_path: Path, error: str, told: str) -> None:
    tree = with_plugin(plugin(tmp_path, forward=f"if len(q) == 2: raise {error}"))
    failed, other = measure(tree=tree, backends=["mine"])["kernels"]
    assert failed["error"] == told
    assert failed["us"] is failed["tb_per_s"] is failed["captured"] is None
    assert other["us"] > 0


def test_the_configuration_s_options_go_to_the_backend_that_it_names(tmp_path: Path) -> None:
    tree = with_plugin(plugin(tmp_path)) | {"attention": {"backend": {"name": "mine", "options": {"depth": 3}}}}
    rows = measure(tree=tree, backends=["mine", "torch_sdpa"], cases="decode:1x2")["kernels"]
    assert {row["backend"]: row["error"] is None for row in rows} == {"mine": False, "torch_sdpa": True}
    assert "takes no options, but got 'depth'" in rows[0]["error"]


# The command


def command(*arguments: str) -> list[str]:
    return ["bench", "kernels", "--device", "cpu", "--heads", "2", "--kv-heads", "1", "--head-dim", "8", *arguments]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    import vcore.bench.kernels as module

    defaults = dict(module.measure_kernels.__kwdefaults__ or {}) | {"pool_bytes": 1, "seconds": 0.0}
    monkeypatch.setattr(module.measure_kernels, "__kwdefaults__", defaults)


@pytest.mark.usefixtures("quick")
def test_the_command_prints_one_json_object_with_the_documented_keys(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(command("-b", "torch_sdpa", "--cases", "decode:1x5,prefill:1x4", "--block-size", "8", "--json")) == 0
    printed = json.loads(capfd.readouterr().out)
    [tree] = [
        node
        for node in ast.walk(ast.parse((ROOT / "vcore/bench/kernels.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "measure_kernels"
    ]
    documented = (ROOT / "docs/cli.md").read_text(encoding="utf-8").partition("## vcore bench kernels")[2]
    keys = {*printed, *printed["kernels"][0]}
    assert not [key for key in keys if f"`{key}`" not in documented]
    assert not [key for key in keys if f"``{key}``" not in (ast.get_docstring(tree) or "")]
    assert printed["kernels"][0]["block_size"] == 8


@pytest.mark.usefixtures("quick")
def test_the_table_has_numbers_and_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plugin(tmp_path, reasons="return ['not [today]']")
    assert run(command("-b", "mine", "-b", "torch_sdpa", "-p", str(path), "--cases", "decode:1x5", "--ops")) == 0
    printed = capsys.readouterr().out
    assert "decode:1x5" in printed
    assert "TB/s" in printed
    assert "rms_norm" in printed
    assert "not measured: mine: not [today]" in printed


@pytest.mark.usefixtures("quick")
def test_a_failed_row_shows_its_error_and_makes_the_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plugin(tmp_path, forward="raise RuntimeError('[bad]')")
    assert run(command("-b", "mine", "-p", str(path), "--cases", "decode:1x5")) == 1
    assert "[bad]" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_nothing_measured_makes_the_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command("-b", "triton_paged", "--cases", "decode:1x5")) == 1
    assert "not measured: triton_paged: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--heads", "30"], "--heads 30 --kv-heads 8: expected as many query heads"),
        (["--latent", "--kv-heads", "2"], "--kv-heads 2: latent attention has no such thing"),
        (["--latent", "--head-dim", "2"], "--head-dim 2: latent attention has no such thing"),
        (["--cases", "decode:1"], "--cases: found 'decode:1'"),
        (["--device", "nowhere"], "found 'nowhere'"),
    ],
)
def test_a_wrong_command_line_is_told_with_status_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "kernels", *arguments]) == 2
    assert told in capsys.readouterr().err
