"""``vcore chat``: talk with a model. Answers go to stdout as they come, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from vcore.cli import generation_options as options
from vcore.cli.chat_session import ChatSession

__all__ = ["command"]

_HELP = """\
/help           this
/reset          forget the conversation
/system [TEXT]  set the system message and forget the conversation; without TEXT: show it
/exit           leave, as does Ctrl-D
Ctrl-C          stop the answer
A message that begins with a slash: put a space before it."""


def command(
    model: options.Model = None,
    system: Annotated[str | None, typer.Option("--system", help="A system message.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The most tokens an answer.")] = 512,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    device: options.Device = None,
    config: options.Config = None,
    set_: options.Set = None,
    plugins: options.Plugins = None,
) -> None:
    """Talk with a model in the terminal; /help lists the commands. Piped, each line of stdin is a message.

    Without any sampling option the likeliest token is taken each time, with a repetition penalty of 1.1.
    """
    params = options.sampling_params(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
    )
    with options.open_llm(model, config, set_, plugins, device) as llm:
        session = ChatSession(llm, params, system)
        read = _terminal_reader() if sys.stdin.isatty() else _pipe_reader
        if sys.stdin.isatty():
            _note(f"{llm.config.model.path}. /help lists the commands.")
        _converse(session, read)


def _converse(session: ChatSession, read: Callable[[], str]) -> None:
    """Read, answer, until the end."""
    while True:
        try:
            line = read()
        except EOFError:
            return
        except KeyboardInterrupt:
            _note("\n/exit or Ctrl-D leaves")
            continue
        if line.startswith("/"):
            if not _obey(session, line):
                return
        elif line.strip():
            _answer(session, line.strip())


def _obey(session: ChatSession, line: str) -> bool:
    """Carry out a slash command; False to leave."""
    name, _, argument = line[1:].strip().partition(" ")
    if name in ("exit", "quit"):
        return False
    if name == "reset":
        session.reset()
        _note("the conversation is forgotten")
    elif name == "system" and not argument.strip():
        _note(f"system message: {session.system}" if session.system else "there is no system message")
    elif name == "system":
        session.system = argument.strip()
        session.reset()
        _note("the system message is set, and the conversation forgotten")
    elif name == "help":
        _note(_HELP)
    else:
        _note(f"there is no command /{name}\n{_HELP}")
    return True


def _answer(session: ChatSession, question: str) -> None:
    from vcore.errors import RequestError

    try:
        turn = session.ask(question, _show)
    except RequestError as error:
        _note(f"error: {error}\n(/reset forgets the conversation)")
        return
    _show("\n")
    if turn.interrupted:
        _note("[stopped]")
    elif turn.output is not None:
        sample = turn.output.outputs[0]
        if sample.finish_reason == "error":
            _note(f"error: {sample.stop_reason}")
        elif sample.finish_reason == "length":
            _note(f"[cut off after {len(sample.token_ids)} tokens]")
        options.note_speed(turn.output)


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _terminal_reader() -> Callable[[], str]:
    """`input`, with line editing and a history where there is readline."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # its import is what makes input() edit
    return lambda: input("> ")


def _pipe_reader() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
