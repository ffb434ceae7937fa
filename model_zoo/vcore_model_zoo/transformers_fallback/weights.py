"""Weights for models of transformers: by transformers' own loading, which knows the older and other forms of names.

Checkpoints may call and cut tensors otherwise than the modules do (experts one by one, a missing prefix). transformers
converts them in ``from_pretrained``, which takes tensors as well as files; so every tensor is read and handed to it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from vcore.errors import WeightsError
from vcore.interfaces.weights import CheckpointReader
from vcore_model_zoo.transformers_fallback.paged_attention import PAGED

__all__ = ["check_names", "load_model"]

_MAX_NAMED = 8
"""How many tensors an error names of each kind."""
_MAX_REPORT = 2000
"""Characters of a report of transformers that an error repeats."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PADDING = re.compile(r" {3,}|-{3,}")
"""Of the cells of such a report."""


def load_model(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    checkpoint: CheckpointReader,
    wanted: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
) -> PreTrainedModel:
    """A model with the weights of `checkpoint`, on the CPU.

    Args:
        model_class: of transformers.
        config: for it.
        checkpoint: every tensor of it is read.
        wanted: what a model without memory has, by name; read by these names where weights are made up.
        dtype: of the weights.

    Raises:
        WeightsError: tensors are missing, surplus or of another shape, and transformers does not convert them either.
    """
    if checkpoint.synthetic:
        tensors = {name: checkpoint.read(name, tuple(tensor.shape)) for name, tensor in wanted.items()}
    else:
        tensors = {name: checkpoint.read(name, tuple(info.shape)) for name, info in checkpoint.tensors().items()}
    with _quiet() as reports:
        try:
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                attn_implementation=PAGED,
                ignore_mismatched_sizes=True,  # they are told below, by name
                output_loading_info=True,
                local_files_only=True,
            )
        except Exception as error:  # conversions raise all sorts
            raise WeightsError(
                f"transformers could not load the checkpoint into {model_class.__name__}. Check that the files are "
                f"complete and belong to the config.json beside them. {type(error).__name__}: {error}{reports.last()}"
            ) from error
    _check_report(report, model_class)
    loaded: PreTrainedModel = model
    return loaded


def check_names(wanted: Mapping[str, torch.Tensor], tied: set[str], checkpoint: CheckpointReader) -> None:
    """See whether the checkpoint has the very tensors that the modules have, by names and shapes alone.

    Args:
        wanted: what a model without memory has, by name.
        tied: names of it that share another's weight, and need not be stored.
        checkpoint: only its headers are used.

    Raises:
        NotImplementedError: it has others. That is no fault: transformers may convert them, but does so only with
            the tensors at hand.
    """
    stored = checkpoint.tensors()
    missing = [name for name in wanted if name not in stored and name not in tied]
    others = [name for name, info in stored.items() if name not in wanted or tuple(wanted[name].shape) != info.shape]
    if missing or others:
        raise NotImplementedError(f"transformers would have to convert {_enumerate([*others, *missing])}")


def _check_report(report: Mapping[str, Any], model_class: type[PreTrainedModel]) -> None:
    misshapen = [
        f"{name} (model {list(expected)}, checkpoint {list(found)})"
        for name, found, expected in sorted(report["mismatched_keys"])
    ]
    kinds = (
        (sorted(report["missing_keys"]), "missing"),
        (sorted(report["unexpected_keys"]), "surplus"),
        (misshapen, "of another shape"),
        (list(report["error_msgs"]), "not convertible"),
    )
    found = [f"{len(names)} {kind}: {_enumerate(names)}" for names, kind in kinds if names]
    if found:
        raise WeightsError(
            f"the checkpoint does not fit transformers' {model_class.__name__}. {'; '.join(found)}. Check that the "
            "files are complete and belong to the config.json beside them."
        )


class _Reports(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(_PADDING.sub("  ", _ANSI.sub("", record.getMessage())))

    def last(self) -> str:
        """The beginning of the last text, for an error."""
        return f"\n{self.texts[-1][:_MAX_REPORT]}" if self.texts else ""


@contextmanager
def _quiet() -> Iterator[_Reports]:
    """No progress bar, and transformers' own reports kept instead of printed: what is wrong is raised."""
    logger, reports = logging.getLogger("transformers"), _Reports()
    had_bar, handlers, propagate = hf_logging.is_progress_bar_enabled(), logger.handlers[:], logger.propagate
    hf_logging.disable_progress_bar()
    logger.handlers[:], logger.propagate = [reports], False
    try:
        yield reports
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        if had_bar:
            hf_logging.enable_progress_bar()


def _enumerate(names: list[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f", and {more} more" if more > 0 else "")
