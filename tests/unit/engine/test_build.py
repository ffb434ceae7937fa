"""What composition alone decides: threads, blocks, checked layers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from vcore.bench.null_model import NULL_MODEL_SPEC, write_null_model
from vcore.bench.overhead import null_engine
from vcore.config import load_config
from vcore.engine import runner_builder
from vcore.engine.build import build_engine
from vcore.engine.checked_attention import CheckedAttention
from vcore.engine.llm import LLM
from vcore.errors import ConfigError
from vcore.executor.uniproc import UniprocExecutor
from vcore.interfaces import (
    AttentionBackend,
    AttentionBackendContext,
    AttentionLayer,
    AttentionMetadata,
    LayerSpec,
    RequestView,
    SchedulingPolicy,
)
from vcore.plugins import AttentionCapabilities, ExecutorSpec, SchedulingPolicySpec
from vcore.runner import ModelRunner, RunnerSettings
from vcore.sampling_params import SamplingParams

CONTEXT = AttentionBackendContext(
    device=torch.device("cpu"),
    dtype=torch.float32,
    block_size=16,
    max_num_seqs=1,
    max_num_batched_tokens=8,
    max_model_len=8,
)
PLAIN = AttentionCapabilities(devices=("cpu",), dtypes=("float32",), head_dims=(64, 128), block_sizes=None)


class Backend(AttentionBackend):
    """Builds anything; says of itself that it dislikes seven heads."""

    def build_layer(self, spec: LayerSpec) -> AttentionLayer:
        return "a layer"  # type: ignore[return-value]

    def plan(self, metadata: AttentionMetadata) -> object:
        return ("plan", metadata)

    @classmethod
    def unsupported_reasons(cls, context: AttentionBackendContext, layers: list[LayerSpec]) -> list[str]:  # type: ignore[override]
        return ["seven heads are too many" for layer in layers if layer.num_heads == 7]


def layer(**changes: object) -> LayerSpec:
    return LayerSpec(**{"num_heads": 4, "num_kv_heads": 1, "head_dim": 64, "scale": 0.125, **changes})


def checked() -> CheckedAttention:
    return CheckedAttention(Backend(), PLAIN, CONTEXT, address="attention_backend/b@d")


def test_layers_within_the_capabilities_are_built() -> None:
    assert checked().build_layer(layer()) == "a layer"
    assert checked().plan("metadata") == ("plan", "metadata")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sliding_window": 8}, "does not list sliding_window"),
        ({"soft_cap": 30.0}, "does not list soft_cap"),
        ({"sinks": True}, "does not list sinks"),
        ({"causal": False}, "does not list non_causal"),
        ({"head_dim": 80}, "serves head dimensions 64, 128, not 80"),
        ({"v_head_dim": 80}, "serves head dimensions 64, 128, not 80"),
        ({"num_heads": 7}, "seven heads are too many"),
    ],
)
def test_what_is_not_listed_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"attention_backend/b@d cannot compute .*{reason}"):
        checked().build_layer(layer(**changes))


def test_the_configured_number_of_threads_is_set() -> None:
    before = torch.get_num_threads()
    try:
        with null_engine(1, 0, 4, {"runtime.num_threads": before + 1}):
            assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("when", "at_start"), [("lazily", False), ("at_start", True)])
def test_the_runner_is_told_when_to_capture_graphs(when: str, at_start: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[RunnerSettings] = []

    def make_runner(settings: RunnerSettings, **parts: Any) -> ModelRunner:
        told.append(settings)
        return ModelRunner(settings, **parts)

    monkeypatch.setattr(runner_builder, "ModelRunner", make_runner)
    with null_engine(1, 0, 4, {"runtime.graph_capture": when}):
        assert [settings.capture_at_start for settings in told] == [at_start]


def test_without_a_limit_there_are_blocks_for_every_request() -> None:
    with null_engine(3, 0, 4, {"cache.num_blocks": "auto", "cache.block_size": 16}) as engine:
        assert engine.config.cache.num_blocks == 3 * -(-engine.max_model_len // 16) + 1


@pytest.fixture
def levels() -> Iterator[None]:
    packages = {"vcore", *(point.module.partition(".")[0] for point in entry_points(group="vcore"))}
    before = {name: logging.getLogger(name).level for name in packages}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.usefixtures("levels")
def test_the_log_level_is_that_of_vcore_and_of_the_plugins_packages() -> None:
    with null_engine(1, 0, 4, {}):
        assert logging.getLogger("vcore").level == logging.NOTSET
    with null_engine(1, 0, 4, {"observability.log_level": "error"}):
        assert logging.getLogger("vcore.engine.core").getEffectiveLevel() == logging.ERROR
        assert logging.getLogger("vcore_policies.eviction").getEffectiveLevel() == logging.ERROR


class LeakyExecutor(UniprocExecutor):
    """Fails as it loads; remembers whether it was shut down."""

    shut_down: ClassVar[list[str]] = []

    def load(self) -> None:
        raise RuntimeError("rank 1 did not come up")

    def shutdown(self) -> None:
        self.shut_down.append("yes")
        super().shutdown()


def test_an_executor_that_fails_to_load_is_shut_down() -> None:
    spec = ExecutorSpec(name="leaky", load=LeakyExecutor, api="1.0")
    with tempfile.TemporaryDirectory() as folder:
        write_null_model(Path(folder), 64)
        model = {"path": folder, "load_format": "dummy", "skip_tokenizer": True}
        config = load_config({"model": model, "runtime": {"device": "cpu"}, "executor": "leaky"})
        with pytest.raises(RuntimeError, match="rank 1"):
            build_engine(config, plugins=[NULL_MODEL_SPEC, spec])
    assert LeakyExecutor.shut_down == ["yes"]


class NonsensePolicy(SchedulingPolicy):
    """Answers what is no reason."""

    def __init__(self, *, options: object, context: object) -> None: ...

    def waiting_key(self, request: RequestView) -> int:
        return request.arrival_index

    def reject(self, request: RequestView) -> str | None:
        return 3  # type: ignore[return-value]


def test_a_policy_at_fault_is_called_by_kind_name_and_owner() -> None:
    spec = SchedulingPolicySpec(name="nonsense", load=NonsensePolicy, api="1.0")
    with tempfile.TemporaryDirectory() as folder:
        write_null_model(Path(folder), 64)
        model = {"path": folder, "load_format": "dummy", "skip_tokenizer": True}
        config = load_config({"model": model, "runtime": {"device": "cpu"}, "scheduler": {"policy": "nonsense"}})
        with LLM.from_engine(build_engine(config, plugins=[NULL_MODEL_SPEC, spec])) as llm:
            llm.generate({"prompt_token_ids": [5]}, SamplingParams(max_tokens=1), progress=False)
            [fault] = llm.health().faults
    assert fault.startswith("scheduling_policy 'nonsense' of object: reject answered 3")


def test_another_routing_for_a_model_without_experts_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match=r"model.moe_routing is 'uniform', but this model has no routed experts"),
        null_engine(1, 1, 1, {"model.moe_routing": "uniform"}),
    ):
        pytest.fail("an engine was built")
