"""``vcore models``: what is served, and whether a model can be, from real files through the installed plugins."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vcore.cli.main import run

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
Captured = pytest.CaptureFixture[str]
Write = Callable[..., Path]


def llama_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (100, 64),
        "model.norm.weight": (64,),
        "lm_head.weight": (100, 64),
    }
    for index in range(2):
        attention, layer = f"model.layers.{index}.self_attn.", f"model.layers.{index}."
        shapes |= {f"{attention}{name}_proj.weight": (64, 64) for name in "qo"}
        shapes |= {f"{attention}{name}_proj.weight": (32, 64) for name in "kv"}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (64, 64) for name in ("gate", "up", "down")}
        shapes |= {f"{layer}{name}_layernorm.weight": (64,) for name in ("input", "post_attention")}
    return shapes


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def write(here: Path) -> Write:
    """Writes ``./model``: config.json with changes, and weights of a Llama with changes; None leaves something out."""

    def run(weights: bool = True, tensors: dict[str, tuple[int, ...] | None] | None = None, **changes: Any) -> Path:
        folder = here / "model"
        folder.mkdir(exist_ok=True)
        values = {key: value for key, value in (CONFIG | changes).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
        shapes = {name: shape for name, shape in (llama_shapes() | (tensors or {})).items() if shape is not None}
        if weights:
            save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "model.safetensors")
        return folder

    return run


def check(capsys: Captured, *arguments: str, status: int = 0, path: str = "./model") -> dict[str, Any]:
    """What ``vcore models check PATH --json`` prints; nothing else may stand on stdout."""
    assert run(["models", "check", path, "--set", "runtime.device=cpu", *arguments, "--json"]) == status
    loaded = json.loads(capsys.readouterr().out)
    assert isinstance(loaded, dict)
    assert loaded["servable"] is (status == 0)
    return loaded


# List


def test_list_names_each_architecture_with_plugin_and_features(capsys: Captured) -> None:
    assert run(["models", "list", "--json"]) == 0
    rows = {row["architecture"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    llama = rows["LlamaForCausalLM"]
    assert (llama["plugin"], llama["distribution"]) == ("model/llama@vcore-engine", "vcore-engine")
    assert llama["features"] == ["rope_scaling", "tensor_parallel", "tied_embeddings"]
    assert "mla" in rows["DeepseekV3ForCausalLM"]["features"]
    assert rows["*"]["plugin"] == "model/transformers@vcore-engine"


def test_list_for_people_tells_of_what_is_not_usable(here: Path, capsys: Captured) -> None:
    (here / "mine.py").write_text(
        "from vcore.plugins import ModelSpec, hookimpl\n"
        "@hookimpl\n"
        "def vcore_models():\n"
        "    common = dict(load=':make', api='1.0', architectures=('MineForCausalLM',))\n"
        "    return [ModelSpec(name='mine', features=frozenset({'moe'}), **common),\n"
        "            ModelSpec(name='needy', requires=('acme-absent',), **common)]\n",
        encoding="utf-8",
    )
    assert run(["models", "list", "-p", "./mine.py"]) == 0
    printed = capsys.readouterr()
    [line] = [line for line in printed.out.splitlines() if line.startswith("MineForCausalLM ")]
    assert line.split()[1:3] == ["model/mine@mine.py", "moe"]
    assert "not usable: model/needy@mine.py" in printed.err


def test_list_imports_no_torch() -> None:
    script = (
        "import sys\n"
        "from vcore.cli.main import run\n"
        "status = run(['models', 'list'])\n"
        "print(status, sorted({'torch', 'transformers', 'gguf'} & set(sys.modules)), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "0 []"


# Check


def test_a_model_that_can_be_served(write: Write, capsys: Captured) -> None:
    write()
    told = check(capsys, "--set", "model.fallback=transformers")
    assert told["reasons"] == told["notes"] == []
    assert told["plugin"] == "model/llama@vcore-engine"
    assert told["loader"] == "weight_loader/safetensors@vcore-engine"
    assert (told["dtype"], told["device"], told["max_model_len"]) == ("float32", "cpu", 512)
    assert told["weights"] == "fit"
    assert told["num_parameters"] == sum(torch.Size(shape).numel() for shape in llama_shapes().values())
    assert told["weight_bytes"] == 4 * told["num_parameters"]
    assert told["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 4
    assert told["kv_cache"] == [{"num_layers": 2, "bytes_per_token": 256, "window": None}]
    memory = told["memory"]
    assert memory["request_bytes"] == 512 * told["kv_bytes_per_token"]
    assert memory["max_cached_tokens"] >= 512 * memory["num_requests"] > 0
    assert told["attention"]["value"] == "torch_sdpa"
    assert told["attention"]["rejected"]


def test_every_key_is_described(write: Write, capsys: Captured) -> None:
    """The page says what each means."""
    write()
    page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    text = page.partition("## vcore models check\n")[2].partition("\n## ")[0]
    told = check(capsys)
    keys = [*told, *told["memory"], *told["attention"]]
    assert not [key for key in keys if f"`{key}`" not in text]


def test_for_people(write: Write, capsys: Captured) -> None:
    write()
    assert run(["models", "check", "./model", "--set", "runtime.device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "can be served." in out.splitlines()[0]
    for fragment in (
        "LlamaForCausalLM",
        "model/llama@vcore-engine",
        "the checkpoint's tensors fit, by name and shape",
        "cpu, up to 512 tokens",
        "torch_sdpa: the highest rank of those that can",
        "KV cache: 512 bytes a token (2 layers, 256 bytes a layer), 0.2 MiB for one request of 512 tokens.",
    ):
        assert fragment in out


def test_windows_are_told_apart(write: Write, capsys: Captured) -> None:
    write(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=32)
    told = check(capsys)
    assert told["kv_cache"] == [{"num_layers": 2, "bytes_per_token": 256, "window": 32}]
    assert run(["models", "check", "./model", "--set", "runtime.device=cpu"]) == 0
    assert "(2 layers of 256 bytes, keeping the last 32)" in capsys.readouterr().out


def test_config_json_alone_is_enough(write: Write, capsys: Captured) -> None:
    write(weights=False)
    told = check(capsys)
    assert told["weights"] == "missing"
    assert "has config.json and no weights" in told["notes"][0]
    assert told["num_parameters"] > 0
    told = check(capsys, "--set", "model.load_format=dummy")
    assert told["weights"] == "made up"
    assert told["notes"] == []


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"model.norm.weight": None}, "1 missing: model.norm.weight"),
        ({"model.gate.weight": (3,)}, "1 surplus: model.gate.weight"),
        ({"model.norm.weight": (65,)}, "model.norm.weight (model [64], checkpoint [65])"),
    ],
)
def test_tensors_that_do_not_fit_are_named_without_reading_them(
    write: Write, capsys: Captured, tensors: dict[str, Any], reason: str
) -> None:
    write(tensors=tensors)
    told = check(capsys, status=1)
    assert told["weights"] == "misfit"
    assert reason in told["reasons"][0]


def test_every_reason_is_listed_not_only_the_first(write: Write, capsys: Captured) -> None:
    write(architectures=["ClamaForCausalLM"], quantization_config={"quant_method": "awq"}, tie_word_embeddings=True)
    settings = ["model.max_model_len=1000", "runtime.tensor_parallel_size=3", "attention.backend=triton_paged"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    reasons = check(capsys, *arguments[:4], status=1)["reasons"]
    assert len(reasons) == 3
    assert "no installed executor runs 3 ranks" in reasons[0] or "tensor_parallel_size" in reasons[0]
    assert "the closest that are served: LlamaForCausalLM (llama)" in reasons[1]
    assert "found 1,000, but the model goes up to 512" in reasons[2]
    reasons = check(capsys, "--set", "model.plugin=llama", status=1)["reasons"]
    assert "quant_method is 'awq'" in reasons[0]
    assert "1 surplus: lm_head.weight" not in str(reasons)  # a tied head may be stored


def test_what_the_model_refuses_is_a_reason(write: Write, capsys: Captured) -> None:
    write(hidden_act="relu")
    told = check(capsys, status=1)
    assert "relu" in told["reasons"][0]
    assert told["num_parameters"] is None
    assert told["weights"] == "unknown"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000, expected at most 4096 layers"),
        ({"vocab_size": None}, "has no 'vocab_size'"),
        ({"architectures": None}, "names no architecture"),
    ],
)
def test_absurd_configs_are_told(write: Write, capsys: Captured, changes: dict[str, Any], reason: str) -> None:
    write(**changes)
    assert reason in " ".join(check(capsys, status=1)["reasons"])


def test_an_attention_backend_that_cannot_is_a_reason(write: Write, capsys: Captured) -> None:
    write()
    (Path("backend.py")).write_text(
        "from vcore.plugins import AttentionBackendSpec, AttentionCapabilities, hookimpl\n"
        "@hookimpl\n"
        "def vcore_attention_backends():\n"
        "    capabilities = AttentionCapabilities(\n"
        "        devices=('cuda',), dtypes=('float16',), head_dims=(128,), block_sizes=None)\n"
        "    return [AttentionBackendSpec(name='narrow', load=':make', api='1.0', capabilities=capabilities)]\n",
        encoding="utf-8",
    )
    told = check(capsys, "-p", "./backend.py", "--set", "attention.backend=narrow", status=1)
    for reason in ("runs on cuda, not on cpu", "computes in float16, not in float32", "serves head dimensions 128"):
        assert reason in told["reasons"][0]
    assert told["memory"] is None


def test_memory_that_does_not_suffice_is_a_reason(
    write: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    monkeypatch.setattr("vcore.engine.model_check.memory.available_host_bytes", lambda: 100_000)
    told = check(capsys, status=1)
    assert "and cpu has 100,000 for them" in told["reasons"][0]
    monkeypatch.setattr("vcore.engine.model_check.memory.available_host_bytes", lambda: 500_000)
    told = check(capsys)
    assert told["memory"]["num_requests"] == 0
    assert told["notes"] == ["the cache holds less than one request of 512 tokens; longer ones are refused"]


def test_damaged_and_incomplete_weights_are_reasons(write: Write, capsys: Captured) -> None:
    folder = write()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    told = check(capsys, status=1)
    assert told["weights"] == "misfit"
    assert "model.safetensors" in told["reasons"][0]
    file.unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    told = check(capsys, "--set", "model.load_format=safetensors", status=1)
    assert "model-00001-of-00002.safetensors" in told["reasons"][0]


def test_a_model_plugin_that_needs_memory_is_told_as_such(write: Write, capsys: Captured) -> None:
    write()
    (Path("stubborn.py")).write_text(
        "import torch\n"
        "from vcore.interfaces import Model\n"
        "from vcore.plugins import ModelSpec, hookimpl\n"
        "class Stubborn(Model):\n"
        "    def __init__(self, *, options, context):\n"
        "        super().__init__()\n"
        "        self.first = torch.ones(1).item()\n"
        "    forward = compute_logits = load_weights = kv_cache_specs = None\n"
        "@hookimpl\n"
        "def vcore_models():\n"
        "    return [ModelSpec(name='stubborn', load=':Stubborn', api='1.0', architectures=('S',))]\n",
        encoding="utf-8",
    )
    told = check(capsys, "-p", "./stubborn.py", "--set", "model.plugin=stubborn")
    assert told["weights"] == "unknown"
    assert told["notes"] == ["model/stubborn@stubborn.py cannot build the model without memory, so less is known of it"]
    assert told["kv_bytes_per_token"] is None
    assert run(["config", "explain", "-m", "./model", "-p", "./stubborn.py", "--set", "model.plugin=stubborn"]) == 0
    assert "Weights and KV cache: known once the model is loaded." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("./absent", "there is no file or folder './absent'"),
        ("smolm2-135m", "did you mean 'smollm2-135m'"),
        ("smollm2-135m", "`vcore pull smollm2-135m` fetches the model"),
    ],
)
def test_what_is_not_here_is_not_fetched(capsys: Captured, path: str, reason: str) -> None:
    assert reason in check(capsys, path=path, status=1)["reasons"][0]


def test_wrong_usage_has_status_2(write: Write, capsys: Captured) -> None:
    write()
    assert run(["models", "check"]) == 2
    assert run(["models", "check", "./model", "--set", "cache.blocksize=3"]) == 2
    assert "did you mean 'cache.block_size'" in capsys.readouterr().err
    assert run(["models", "check", "./model", "--set", "model.path=other"]) == 2
    assert "the model is given twice" in capsys.readouterr().err


def test_a_gguf_file_is_checked_by_its_header(smollm2_path: Path, capsys: Captured, here: Path) -> None:
    """From a file that has no converted copy beside it, and none is made."""
    [file] = smollm2_path.glob("*.gguf")
    (here / "model.gguf").symlink_to(file)
    told = check(capsys, path="./model.gguf")
    assert (told["plugin"], told["weights"]) == ("model/llama@vcore-engine", "fit")
    assert told["loader"] == "weight_loader/gguf@vcore-engine"
    assert told["num_parameters"] == 134_515_008
    assert told["kv_cache"] == [{"num_layers": 30, "bytes_per_token": 2 * 3 * 64 * 4, "window": None}]
    assert sorted(path.name for path in here.iterdir()) == ["model.gguf"]
