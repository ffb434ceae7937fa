"""`TargetChoice`: whom the load is put on, as a command line says it, and with which engine that is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vcore.bench.serve.http_options import HTTPOptions
from vcore.bench.serve.offline_sampling import offline_sampling
from vcore.bench.serve.session import OfflineEngine
from vcore.bench.serve.target import Target
from vcore.config import EngineConfig
from vcore.config.cli_options import config_from_cli
from vcore.errors import ConfigError

__all__ = ["EngineChoice", "TargetChoice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """The configuration of an engine, as every command takes it."""

    config: Path | None = None
    set_: Sequence[str] = ()
    plugins: Sequence[str] = ()
    model: str | None = None

    @property
    def given(self) -> bool:
        """Whether anything was said about it."""
        return bool(self.config or self.set_ or self.plugins or self.model)

    def resolve(self) -> tuple[EngineConfig, Path | None]:
        """See `config_from_cli`."""
        return config_from_cli(self.config, self.set_, self.plugins, self.model)

    def arguments(self) -> list[str]:
        """The same for another command."""
        words = [] if self.config is None else ["--config", str(self.config)]
        words += [word for value in self.set_ for word in ("--set", value)]
        words += [word for value in self.plugins for word in ("-p", value)]
        return words + ([] if self.model is None else ["--model", self.model])


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetChoice:
    """A server that runs, one that is started for the occasion, or the engine without a server."""

    url: str | None = None
    in_process: bool = False
    """Whether there is to be no server."""
    engine_thread: bool = False
    """Whether the engine is to be a thread, not a process, of what is started."""
    http: HTTPOptions = field(default_factory=HTTPOptions)
    engine: EngineChoice = field(default_factory=EngineChoice)
    compare_offline: bool = False

    def check(self) -> None:
        """That all of it goes together, before anything is started.

        Raises:
            ConfigError: it does not, the engine's configuration or the URL is wrong, or requests to a server have
                fields that `LLM.generate`, which they are compared with, has not.
        """
        if self.url is not None and (self.in_process or self.engine_thread):
            raise ConfigError(
                "--url is of a server that runs already: leave out --in-process and --engine-thread, or the URL"
            )
        if self.url is not None and self.engine.given and not self.compare_offline:
            raise ConfigError(
                "--model, --config, --set, -p and --moe-routing are of an engine that is started here, and with --url "
                "none is: leave them out, name the server's model with --served-model, or add --compare-offline"
            )
        if self.in_process and self.http.is_chat:
            raise ConfigError("--endpoint chat is of a server, and with --in-process there is none")
        if self.in_process and self.http.extra_body:
            raise ConfigError("--extra-body is of requests to a server, and with --in-process there is none")
        self.offline()  # says if it could not do what the target does
        if self.url is not None:
            self.make()  # says if the URL is none of a server

    def make(self) -> Target:
        """The target, not entered yet."""
        if self.url is not None:
            from vcore.bench.serve.http_target import HTTPTarget

            return HTTPTarget(self.url, self.http)
        if self.in_process:
            from vcore.bench.serve.in_process import InProcessTarget

            config, base_dir = self.engine.resolve()
            return InProcessTarget.of_config(
                config, base_dir=base_dir, temperature=self.http.temperature, engine_thread=self.engine_thread
            )
        from vcore.bench.serve.server_process import SpawnedServer

        thread = ["--in-process"] if self.engine_thread else []
        return SpawnedServer([*self.engine.arguments(), *thread], self.http)

    def offline(self) -> OfflineEngine | None:
        """What `LLM.generate` is to run with; None without a comparison. Raises as `check`."""
        config, base_dir = self.engine.resolve()
        if not self.compare_offline:
            return None
        return OfflineEngine(
            config=config,
            base_dir=base_dir,
            temperature=self.http.temperature,
            detokenize=not (self.in_process or config.model.skip_tokenizer),
            ignore_eos=self.in_process or self.http.ignore_eos,
            is_chat=self.http.is_chat,
            sampling=offline_sampling(self.http.extra_body),
        )
