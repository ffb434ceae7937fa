"""``vcore generate``: complete prompts. Text goes to stdout as it comes, everything else to stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcore.cli import generation_options as options
from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Json

if TYPE_CHECKING:
    from vcore.engine.llm import LLM
    from vcore.engine.prompts import Prompt
    from vcore.outputs import CompletionOutput, RequestOutput
    from vcore.sampling_params import SamplingParams

__all__ = ["command"]


def command(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="- reads stdin, and so does none, from a pipe.")
    ] = None,
    model: options.Model = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The most tokens to generate.")] = 64,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    num_samples: Annotated[int, typer.Option("--n", min=1, help="Samples of each prompt.")] = 1,
    logprobs: Annotated[int | None, typer.Option(min=0, help="Alternatives a token; with --json.")] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on to --max-tokens.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt as a question, by the chat template.")] = False,
    system: Annotated[str | None, typer.Option("--system", help="A system message, with --chat.")] = None,
    as_json: Json = False,
    device: options.Device = None,
    config: options.Config = None,
    set_: options.Set = None,
    plugins: options.Plugins = None,
) -> None:
    """Complete prompts.

    One prompt streams to stdout. Several prompts or samples run as one batch and are printed in order, each
    below a line with its prompt. Without any sampling option the likeliest token is taken each time, with a
    repetition penalty of 1.1, so that the same command prints the same text.
    """
    if logprobs is not None and not as_json:
        raise typer.BadParameter("only the JSON output has logprobs: add --json", param_hint="--logprobs")
    if system is not None and not chat:
        raise typer.BadParameter("a system message needs --chat", param_hint="--system")
    texts = _read_prompts(prompts or [])
    params = options.sampling_params(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        n=num_samples,
        logprobs=logprobs,
        ignore_eos=ignore_eos,
    )
    with reserved_stdout(as_json) as emit, options.open_llm(model, config, set_, plugins, device) as llm:
        rendered = _render(llm, texts, chat, system)
        if as_json:
            outputs = llm.generate(rendered, params)
            emit({"model": llm.config.model.path, "outputs": [_as_dict(output) for output in outputs]})
        elif len(texts) == 1 and num_samples == 1:
            outputs = [_print_stream(llm, rendered[0], params)]
        else:
            outputs = llm.generate(rendered, params)
            _print_all(texts, outputs)
    if any(sample.finish_reason == "error" for output in outputs for sample in output.outputs):
        raise typer.Exit(1)


def _read_prompts(prompts: list[str]) -> list[str]:
    """The prompts, with stdin in the place of ``-``, or as the only one if it is a pipe.

    One newline at the end of stdin is dropped: it is the pipe's, not the prompt's.
    """
    from vcore.engine.prompts import parse_prompt

    if not prompts and sys.stdin.isatty():
        raise typer.BadParameter("give a prompt, or pipe one in", param_hint="PROMPT")
    if prompts.count("-") > 1:
        raise typer.BadParameter("'-' stands for stdin and may be given once", param_hint="PROMPT")
    texts = [_read_stdin() if prompt == "-" else prompt for prompt in prompts or ["-"]]
    for text in texts:
        parse_prompt(text)  # what is wrong with it should be said before a model is loaded
    return texts


def _read_stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"stdin is not {error.encoding} text: {error.reason}", param_hint="PROMPT") from None


def _render(llm: LLM, texts: list[str], chat: bool, system: str | None) -> list[Prompt]:
    if not chat:
        return list(texts)
    before = [] if system is None else [{"role": "system", "content": system}]
    return [llm.render_chat([*before, {"role": "user", "content": text}]) for text in texts]


def _print_stream(llm: LLM, prompt: Prompt, params: SamplingParams) -> RequestOutput:
    """Print text as it comes; an interrupted or failed output ends its line, too."""
    shown = 0
    try:
        for output in llm.stream(prompt, params):
            text = output.outputs[0].text
            sys.stdout.write(text[shown:])
            sys.stdout.flush()
            shown = len(text)
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()
    _report_error(output.outputs[0])
    options.note_speed(output)
    return output


def _print_all(texts: list[str], outputs: list[RequestOutput]) -> None:
    blocks = [(text, sample) for text, output in zip(texts, outputs, strict=True) for sample in output.outputs]
    for position, (text, sample) in enumerate(blocks):
        separator = "\n" if position else ""
        print(f"{separator}==> {' '.join(text.split())} <==\n{sample.text}")
        _report_error(sample)


def _report_error(sample: CompletionOutput) -> None:
    if sample.finish_reason == "error":
        print(f"error: sample {sample.index} failed: {sample.stop_reason}", file=sys.stderr)


def _as_dict(output: RequestOutput) -> dict[str, Any]:
    """A request's output as JSON has it; seconds in `metrics`."""
    from dataclasses import asdict

    values = asdict(output)
    metrics = output.metrics
    if metrics is not None:
        values["metrics"] |= {"queue_time": metrics.queue_time, "ttft": metrics.ttft, "mean_itl": metrics.mean_itl}
    return values
