"""`OfflineSession`: the requests of an engine in this process, from prompts to outputs. Knows no model and no file."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from vcore.engine.batch import Params, each, params_for, warn_of_errors
from vcore.engine.driver import EngineDriver
from vcore.engine.input_processor import InputProcessor, ProcessedRequest
from vcore.engine.output_processor import OutputProcessor
from vcore.engine.progress import batch_progress
from vcore.engine.prompts import Prompt
from vcore.outputs import RequestOutput
from vcore.pooling_params import PoolingParams

if TYPE_CHECKING:
    from vcore.engine.build import Engine

__all__ = ["OfflineSession"]


class OfflineSession:
    """Checks and tokenises requests, all of a call before the first enters the engine, and runs them as one batch."""

    def __init__(self, engine: Engine) -> None:
        """Args:
        engine: composed; whoever made it shuts it down.
        """
        from vcore.engine.processor_options import ProcessorOptions

        options = ProcessorOptions(engine.catalog, engine.config.sampling.structured_output)
        self._preparer = engine.preparer
        self._input_processor = InputProcessor(
            tokenizer=engine.tokenizer,
            vocab_size=engine.vocab_size,
            max_model_len=engine.max_model_len,
            eos_token_ids=engine.eos_token_ids,
            seed=engine.config.runtime.seed,
            check_processor=options.check,
            form_processor=options.for_structured_output,
            pooling=engine.pooling,
        )
        self._driver = EngineDriver(engine.core, OutputProcessor(engine.tokenizer, engine.core.finish))
        self._serial = itertools.count()

    def process(self, prompts: Sequence[Prompt], params: Params) -> list[ProcessedRequest]:
        """Requests that generate; nothing has entered the engine yet.

        Raises:
            RequestError: a prompt or its parameters are wrong; of several prompts it says which.
        """
        own_params = params_for(params, len(prompts))

        def process(prompt: Prompt, index: int) -> ProcessedRequest:
            processed = self._input_processor.process(prompt, own_params[index], request_id=self._new_id())
            if not processed.params.logits_processors:
                return processed
            return replace(processed, engine_requests=self._preparer.prepare_all(processed.engine_requests))

        return each(prompts, process)

    def process_embeddings(self, prompts: Sequence[Prompt], params: PoolingParams) -> list[ProcessedRequest]:
        """The same for requests that embed."""

        def process(prompt: Prompt, _: int) -> ProcessedRequest:
            return self._input_processor.process_embedding(prompt, params, request_id=self._new_id())

        return each(prompts, process)

    def run(self, requests: Sequence[ProcessedRequest], *, progress: bool) -> list[RequestOutput]:
        """Run requests to their ends; outputs in their order.

        Args:
            requests: of `process` or `process_embeddings`.
            progress: whether to show a bar, if stderr is a terminal.

        Raises:
            EngineDeadError: the engine cannot go on.
        """
        ended: dict[str, RequestOutput] = {}
        with (
            batch_progress(len(requests), enabled=progress) as note,
            closing(self._driver.run(requests)) as outputs,
        ):
            for output in outputs:
                ended[output.request_id] = output
                note(output)
        results = [ended[request.request_id] for request in requests]
        warn_of_errors(results)
        return results

    def stream(self, requests: Sequence[ProcessedRequest]) -> Generator[RequestOutput]:
        """Run requests, telling every change. They enter the engine when the first output is asked for."""
        return self._driver.run(requests, stream=True)

    def _new_id(self) -> str:
        return f"request-{next(self._serial)}"
