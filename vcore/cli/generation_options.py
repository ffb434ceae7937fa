"""The options that `vcore generate` and `vcore chat` share, and what they make of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcore.cli.shared_options import Config, Model, Plugins, Set

if TYPE_CHECKING:
    from vcore.engine.llm import LLM
    from vcore.outputs import RequestOutput
    from vcore.sampling_params import SamplingParams

__all__ = [
    "DEFAULT_REPETITION_PENALTY",
    "Config",
    "Device",
    "MinP",
    "Model",
    "Plugins",
    "RepetitionPenalty",
    "Seed",
    "Set",
    "Stop",
    "Temperature",
    "TopK",
    "TopP",
    "note_speed",
    "open_llm",
    "sampling_params",
]

Device = Annotated[str | None, typer.Option("--device", help="Such as cpu or cuda:0.")]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        "-t",
        min=0.0,
        help="0 takes the likeliest token. 1 with --top-p, --top-k or --min-p; else 0.",
    ),
]
TopP = Annotated[float | None, typer.Option("--top-p", help="Keep tokens up to this much probability.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Keep so many tokens.")]
MinP = Annotated[float | None, typer.Option("--min-p", help="Keep tokens this likely beside the likeliest.")]
RepetitionPenalty = Annotated[
    float | None, typer.Option("--repetition-penalty", help="Above 1, tokens that were used become less likely.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="The same seed gives the same text.")]
Stop = Annotated[list[str] | None, typer.Option("--stop", help="Text that ends the output; may be given again.")]


DEFAULT_REPETITION_PENALTY = 1.1
"""With the likeliest token each time. Without it small models go round in circles within a few lines."""


def sampling_params(
    *,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    min_p: float | None,
    repetition_penalty: float | None,
    **given: Any,
) -> SamplingParams:
    """`SamplingParams` of the options that were given; None and empty lists count as not given.

    If none of those that are named here is given, the likeliest token is taken each time, with
    `DEFAULT_REPETITION_PENALTY`. As soon as one is, no penalty applies but the one given, so that
    ``--temperature 0`` is plain greedy decoding.

    Raises:
        RequestError: one is out of range, or two contradict each other.
    """
    from vcore.sampling_params import SamplingParams

    filters = {"top_p": top_p, "top_k": top_k, "min_p": min_p}
    filtered = any(value is not None for value in filters.values())
    if temperature is None:
        if not filtered and repetition_penalty is None:
            repetition_penalty = DEFAULT_REPETITION_PENALTY
        temperature = 1.0 if filtered else 0.0
    values = {"temperature": temperature, "repetition_penalty": repetition_penalty} | filters | given
    return SamplingParams(**{name: value for name, value in values.items() if value is not None and value != []})


def open_llm(
    model: str | None, config: Path | None, set_: list[str] | None, plugins: list[str] | None, device: str | None
) -> LLM:
    """An engine by the options that commands share. The configuration is checked before torch is imported.

    Raises:
        VcoreError: the configuration, a plugin or the model is wrong.
    """
    from vcore.config.cli_options import config_from_cli

    pairs = [*(set_ or []), *([f"runtime.device={device}"] if device is not None else [])]
    tree, base_dir = config_from_cli(config, pairs, plugins or [], model)
    from vcore.engine.llm import LLM

    return LLM(config=tree, base_dir=base_dir)


def note_speed(output: RequestOutput) -> None:
    """One dim line on stderr, if it is a terminal: tokens, time to the first one, and tokens a second after it."""
    metrics = output.metrics
    if not sys.stderr.isatty() or metrics is None or metrics.ttft is None:
        return
    num_tokens = sum(len(sample.token_ids) for sample in output.outputs)
    speed = f", then {1 / metrics.mean_itl:.1f} tokens/s" if metrics.mean_itl else ""
    print(f"\033[2m[{num_tokens} tokens; first after {metrics.ttft:.2f} s{speed}]\033[0m", file=sys.stderr)
