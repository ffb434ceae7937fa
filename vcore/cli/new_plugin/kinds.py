"""`KindTexts`: what a new plugin of a kind says of itself, beyond its code."""

from __future__ import annotations

from dataclasses import dataclass

from vcore.plugins.specs import PluginKind

__all__ = ["KIND_TEXTS", "KindTexts"]


@dataclass(frozen=True, slots=True)
class KindTexts:
    """May hold ``$name`` and the other names of `PluginNames`."""

    summary: str
    use: str
    """How a user selects it: arguments of ``vcore generate``, or a sentence."""
    spec_arguments: tuple[str, ...] = ()
    """Further arguments of the spec, a line each."""
    spec_imports: tuple[str, ...] = ()
    """Further names out of `vcore.plugins` that those need."""

    @property
    def is_command(self) -> bool:
        """Whether `use` is arguments."""
        return self.use.startswith("-")


KIND_TEXTS: dict[PluginKind, KindTexts] = {
    PluginKind.MODEL: KindTexts(
        summary="a bigram model",
        use='a model whose config.json says "architectures": ["$architecture"] gets it; or set model.plugin=$name',
        spec_arguments=('architectures=("$architecture",),',),
    ),
    PluginKind.ATTENTION_BACKEND: KindTexts(
        summary="attention by its formula, for the CPU",
        use="--set attention.backend=$name",
        spec_imports=("AttentionCapabilities",),
        spec_arguments=(
            "# What is not listed here is never asked for.",
            "capabilities=AttentionCapabilities(",
            '    devices=("cpu",),',
            '    dtypes=("float32", "bfloat16", "float16"),',
            "    head_dims=None,",
            "    block_sizes=None,",
            "),",
        ),
    ),
    PluginKind.SCHEDULING_POLICY: KindTexts(summary="first come, first served", use="--set scheduler.policy=$name"),
    PluginKind.EVICTION_POLICY: KindTexts(
        summary="what became unused first goes first", use="--set cache.eviction=$name"
    ),
    PluginKind.ROUTING_POLICY: KindTexts(
        summary="the replica with the most free blocks",
        use="`vcore simulate --trace FILE --replicas 4 --routing $name`",
    ),
    PluginKind.WEIGHT_LOADER: KindTexts(
        summary="weights in NumPy files, one a tensor",
        use="--model FOLDER --set model.load_format=$name",
        spec_arguments=(
            'formats=("$name",),',
            "# Add suffixes=(...) for endings by which `auto` is to know the format.",
        ),
    ),
    PluginKind.MODEL_SOURCE: KindTexts(
        summary="models by name, out of one folder",
        use="--model $scheme://NAME",
        spec_arguments=('schemes=("$scheme",),',),
    ),
    PluginKind.EXECUTOR: KindTexts(
        summary="one rank, in the caller's process",
        use="--set executor=$name",
        spec_arguments=("max_world_size=1,",),
    ),
    PluginKind.LOGITS_PROCESSOR: KindTexts(
        summary="a bias on the tokens that a request names",
        use='a request asks for it: SamplingParams(logits_processors={"name": "$name", "options": {"token_ids": [5]}})',
    ),
    PluginKind.OBSERVER: KindTexts(
        summary="a line for each request that finished",
        use="--set 'observability.observers=[$name]'",
        spec_arguments=('events=frozenset({"finished"}),',),
    ),
    PluginKind.TOOL_PARSER: KindTexts(
        summary="tool calls as JSON between markers",
        use="`vcore serve --set chat.tool_parser=$name`; or add what its models' chat templates have to `templates`",
        spec_arguments=(
            "# Regular expressions, one of which the chat template has, for `auto`.",
            "templates=(),",
        ),
    ),
    PluginKind.REASONING_PARSER: KindTexts(
        summary="reasoning between markers",
        use="`vcore serve --set chat.reasoning_parser=$name`; or add what its chat templates have to `templates`",
        spec_arguments=(
            "# Regular expressions, one of which the chat template has, for `auto`.",
            "templates=(),",
        ),
    ),
}
"""Every kind."""
