"""The configuration: one frozen pydantic tree. It states what is wanted; `vcore.engine.resolve` resolves ``auto``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from vcore.config.frozen import FrozenDict, freeze
from vcore.config.node import ConfigNode
from vcore.config.secrets import mask_unknown
from vcore.config.server_settings import ServerSettings

__all__ = [
    "PLUGIN_CHOICES",
    "AttentionConfig",
    "CacheConfig",
    "ChatConfig",
    "ConfigNode",
    "EngineConfig",
    "ModelConfig",
    "ObservabilityConfig",
    "PluginChoice",
    "PluginOptions",
    "PluginsConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "SchedulerConfig",
    "SimulationConfig",
]

Auto = Literal["auto"]
_INT32_MAX = 2**31 - 1
"""Tokens, positions, rows and blocks are counted in int32 on every device."""
Positive = Annotated[int, Field(ge=1, le=_INT32_MAX, strict=True)]


class PluginOptions(ConfigNode):
    """The base of a plugin's options. Subclass it in a module that imports only pydantic and vcore.config.

    A field of type `pydantic.SecretStr` may be written as ``${env:NAME}``, and is masked wherever it is shown.
    Nested models subclass `PluginOptions`, too.
    """


class PluginChoice(ConfigNode):
    """Which plugin serves: ``NAME``, ``NAME@DISTRIBUTION``, or ``{name: NAME, options: {...}}``."""

    _unread: ClassVar[frozenset[str]] = frozenset({"options"})

    name: Annotated[str, Field(min_length=1)] = "auto"
    """The plugin's name, optionally ``NAME@DISTRIBUTION``, or ``auto``."""
    options: Annotated[dict[str, Any], AfterValidator(freeze)] = Field(default_factory=FrozenDict)
    """The plugin's own options, as written: the plugin's model checks them and fills in secrets. They need an
    explicit name."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:  # whatever the user wrote
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _options_need_a_name(self) -> PluginChoice:
        if self.options and self.name == "auto":
            raise ValueError("options were given, but the name is 'auto': name the plugin that they are for")
        return self

    def __repr_args__(self) -> Any:  # pydantic's own type is private
        return [("name", self.name), ("options", mask_unknown(self.options))]

    @property
    def is_auto(self) -> bool:
        """Whether the choice is left to vcore."""
        return self.name == "auto"


AUTO = PluginChoice()


class ModelConfig(ConfigNode):
    """The model: where it is, and how it is loaded."""

    path: Annotated[str, Field(min_length=1)] = "smollm2-135m"
    """A folder, a file, a short name (``vcore pull`` lists them), ``owner/name`` on the hub, or ``scheme://name``."""
    source: PluginChoice = AUTO
    """Where the model comes from; ``auto`` goes by `path`. Options such as a token need the name: ``hub``."""
    plugin: PluginChoice = AUTO
    """The model plugin; ``auto`` takes the one that serves the architecture in the model's config."""
    fallback: PluginChoice | None = None
    """The model plugin for architectures that no plugin serves, such as ``transformers``; None refuses them."""
    load_format: PluginChoice = AUTO
    """The weight loader's format, such as ``safetensors``, ``gguf`` or ``dummy``; ``auto`` goes by the files."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What weights and activations are computed in; ``auto``: float32 on CPU, the model's own elsewhere."""
    max_model_len: Positive | Auto = "auto"
    """Most tokens of prompt and output together; ``auto``: what the model was trained for."""
    pooling: Literal["auto", "none", "last", "mean"] = "auto"
    """How embeddings are made of hidden states: the last token's, or the mean over all tokens; ``auto``: as the
    checkpoint says (sentence-transformers' ``modules.json``, or a GGUF file), or none, which refuses requests for
    them."""
    tokenizer: str | None = None
    """A folder with a tokenizer, if it is not the model's own."""
    skip_tokenizer: bool = False
    """Load no tokenizer: prompts must be token ids, and no text comes out."""
    offline: bool = False
    """Fetch nothing: use what is on this machine."""
    moe_routing: Literal["model", "uniform"] = "model"
    """How tokens choose experts: by the model's own rule, or, for benchmarks with random weights, uniformly."""

    @field_validator("fallback", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:  # whatever the user wrote
        return None if value == "none" else value

    @field_validator("fallback")
    @classmethod
    def _fallback_is_named(cls, value: PluginChoice | None) -> PluginChoice | None:
        if value is not None and value.is_auto:
            raise ValueError("'auto' chooses nothing here; name a model plugin, or none")
        return value


class AttentionConfig(ConfigNode):
    """Attention."""

    backend: PluginChoice = AUTO
    """The attention backend."""
    fused_write: bool = True
    """Normalise and turn queries and keys and write the cache in one kernel, where the model's layers can."""


class CacheConfig(ConfigNode):
    """The paged KV cache."""

    block_size: Positive | Auto = "auto"
    """Tokens a block holds."""
    num_blocks: Annotated[int, Field(ge=2, le=_INT32_MAX, strict=True)] | Auto = "auto"
    """Blocks in all, one of them the null block; ``auto``: what `memory_fraction` allows."""
    memory_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """On an accelerator: the share of the device's memory that the engine may use. On CPU: the share of
    the memory that is free after loading the model, at most 4 GiB unless `num_blocks` says more."""
    prefix_caching: bool = True
    """Reuse blocks of earlier requests with the same beginning."""
    eviction: PluginChoice = AUTO
    """The eviction policy of the prefix cache."""


class SchedulerConfig(ConfigNode):
    """Which requests run in a step, and how many tokens of each."""

    policy: PluginChoice = AUTO
    """The scheduling policy."""
    max_num_seqs: Positive | Auto = "auto"
    """Most requests that run at the same time; ``auto``: 256."""
    max_num_batched_tokens: Positive | Auto = "auto"
    """Most tokens computed in a step; ``auto``: 2048 on CPU, 8192 elsewhere."""
    long_prefill_threshold: Positive | None = None
    """Most prompt tokens of one request in a step, so that long prompts leave room for others; None: no such limit."""
    chunked_prefill: bool = True
    """Whether a prompt may be computed over several steps."""


class RuntimeConfig(ConfigNode):
    """The machine."""

    device: str = "auto"
    """A torch device, such as ``cpu`` or ``cuda:0``; ``auto``: the accelerator if there is one."""
    tensor_parallel_size: Positive = 1
    """Over how many ranks each layer is split."""
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0
    """For dummy weights, and for the seeds of requests that give none."""
    num_threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | Auto = "auto"
    """CPU threads for computing, far more of which than there are processors may crash torch; ``auto`` leaves
    torch's own choice."""
    enforce_eager: bool = False
    """Capture no CUDA graphs: every kernel is launched from the host. Slower; for looking into what goes on."""
    graph_capture: Literal["lazily", "at_start"] = "lazily"
    """When CUDA graphs are captured: each when a step first needs its size, which makes that step 50 to 100 ms longer;
    or all of them before the first request. With `enforce_eager` there are none."""
    async_scheduling: bool | Auto = "auto"
    """Prepare a step while the one before it is computed; its tokens reach the host a step later. ``auto``: wherever
    the device is not the CPU."""


class SamplingConfig(ConfigNode):
    """How tokens are chosen, as far as requests do not say."""

    structured_output: PluginChoice | None = AUTO
    """The logits processor that keeps a text to the form that its request asks for; none refuses such requests.
    Options stand for what the plugin takes beside the form."""

    @field_validator("structured_output", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:  # whatever the user wrote
        return None if value == "none" else value


class ChatConfig(ConfigNode):
    """What the server finds in the text of a conversation's answer."""

    tool_parser: PluginChoice | None = AUTO
    """The format of tool calls; ``auto``: what the model's chat template shows; none: calls stay text."""
    reasoning_parser: PluginChoice | None = AUTO
    """The format of reasoning; ``auto``: what the model's chat template shows; none: reasoning stays text."""

    @field_validator("tool_parser", "reasoning_parser", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:  # whatever the user wrote
        return None if value == "none" else value


class PluginsConfig(ConfigNode):
    """Which plugins may be imported, and which are preferred."""

    load: tuple[str, ...] = ()
    """Plugins without packaging: ``./file.py`` (relative to this file) or ``package.module``."""
    allow: tuple[str, ...] | None = None
    """Distributions whose plugins may be imported; None: all. vcore's own always may."""
    disable: tuple[str, ...] = ()
    """Distributions or entry points not to import, or ``kind/name`` to hide."""
    prefer: tuple[str, ...] = ()
    """Distributions, beside vcore's own, that ``auto`` considers; earlier is preferred."""
    require: tuple[str, ...] = ()
    """``kind/name`` or distributions that must be there and work."""
    strict: bool = False
    """A policy that fails ends the engine, instead of the core's own order taking over."""


class ObservabilityConfig(ConfigNode):
    """What is told of the engine's work."""

    log_level: Literal["debug", "info", "warning", "error"] | None = None
    """From which level on vcore and its plugins log; None leaves the levels of Python's `logging` as they are."""
    observers: tuple[PluginChoice, ...] = ()
    """Observer plugins that get the engine's events."""


class SimulationConfig(ConfigNode):
    """What is simulated beside the engine: the fleet that it is part of."""

    routing: PluginChoice = AUTO
    """The routing policy: which replica a request is sent to."""


class EngineConfig(ConfigNode):
    """Everything that an engine is composed from."""

    model: ModelConfig = ModelConfig()
    attention: AttentionConfig = AttentionConfig()
    cache: CacheConfig = CacheConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    sampling: SamplingConfig = SamplingConfig()
    chat: ChatConfig = ChatConfig()
    executor: PluginChoice = AUTO
    """What runs the ranks."""
    runtime: RuntimeConfig = RuntimeConfig()
    plugins: PluginsConfig = PluginsConfig()
    observability: ObservabilityConfig = ObservabilityConfig()
    server: ServerSettings = ServerSettings()
    """What `vcore serve` reads; nobody else does."""
    simulation: SimulationConfig = SimulationConfig()
    """What `vcore simulate` reads; nobody else does."""


PLUGIN_CHOICES: Mapping[str, str] = MappingProxyType(
    {
        "model.source": "model_source",
        "model.plugin": "model",
        "model.fallback": "model",
        "model.load_format": "weight_loader",
        "attention.backend": "attention_backend",
        "cache.eviction": "eviction_policy",
        "scheduler.policy": "scheduling_policy",
        "executor": "executor",
        "sampling.structured_output": "logits_processor",
        "chat.tool_parser": "tool_parser",
        "chat.reasoning_parser": "reasoning_parser",
        "observability.observers": "observer",
        "simulation.routing": "routing_policy",
    }
)
"""The keys that choose a plugin, and its kind (`vcore.plugins.PluginKind`). `model.load_format` chooses by file
format; `observability.observers` is a list."""
