"""Building a model on torch's ``meta`` device, where tensors have shapes and dtypes and no memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from vcore.engine.outline.model_outline import ModelOutline
from vcore.engine.outline.recording import RecordingAttention, RecordingCollective
from vcore.errors import PluginBrokenError, PluginOptionsError, VcoreError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext, Model
from vcore.plugins.catalog import Catalog
from vcore.plugins.entry import CatalogEntry

__all__ = ["MetaModel", "build_on_meta", "outline_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MetaModel:
    """A model without memory, with what it asked for while it was built."""

    model: Model
    outline: ModelOutline


def outline_model(
    catalog: Catalog,
    entry: CatalogEntry,
    options: Mapping[str, Any],
    config: HFConfig,
    *,
    dtype: torch.dtype,
    max_model_len: int,
    tp_size: int = 1,
) -> ModelOutline | None:
    """The outline of the model that the plugin `entry` builds from `config`; see `build_on_meta`."""
    built = build_on_meta(catalog, entry, options, config, dtype=dtype, max_model_len=max_model_len, tp_size=tp_size)
    return None if built is None else built.outline


def build_on_meta(
    catalog: Catalog,
    entry: CatalogEntry,
    options: Mapping[str, Any],
    config: HFConfig,
    *,
    dtype: torch.dtype,
    max_model_len: int,
    tp_size: int = 1,
) -> MetaModel | None:
    """Build the model of rank 0 without memory.

    Args:
        catalog: creates the plugin.
        entry: the model plugin.
        options: its options, as written.
        config: the model's.
        dtype: of weights and activations.
        max_model_len: most tokens of a request.
        tp_size: over how many ranks each layer is split.

    Returns:
        None if the plugin's code cannot build without memory (it looks at values), which is no fault.

    Raises:
        PluginBrokenError: the plugin's code cannot be imported, or building failed for a reason that memory has
            nothing to do with.
        PluginOptionsError: its options do not fit.
        VcoreError: the model refused on purpose, such as `UnsupportedModelError` for its config.
    """
    catalog.load(entry)
    recorder = RecordingAttention()
    context = BuildContext(
        config=config,
        dtype=dtype,
        device=torch.device("meta"),
        attention=recorder,
        max_model_len=max_model_len,
        tp_size=tp_size,
        collective=RecordingCollective(tp_size) if tp_size > 1 else None,
    )
    try:
        model = _create(catalog, entry, options, context)
        return MetaModel(model, _describe(model, recorder))
    except PluginOptionsError:
        raise
    except PluginBrokenError as error:
        if not _is_for_lack_of_values(error.__cause__):
            raise
        logger.debug("%s cannot be built without memory, so less is known of it: %s", entry.title, error)
        return None
    except VcoreError:
        raise
    except Exception as error:  # whatever a stranger's kv_cache_specs raises
        logger.debug("%s cannot be described: %s: %s", entry.title, type(error).__name__, error)
        return None


def _is_for_lack_of_values(error: BaseException | None) -> bool:
    """Whether code that is right may fail so on ``meta``: with torch's own errors, and whatever names the device."""
    return isinstance(error, NotImplementedError | RuntimeError) or "meta" in str(error)


def _create(catalog: Catalog, entry: CatalogEntry, options: Mapping[str, Any], context: BuildContext) -> Model:
    """The model, built under the defaults that a runner sets."""
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(context.dtype)
    try:
        with context.device:
            return cast(Model, catalog.create(entry, options=options, context=context))
    finally:
        torch.set_default_dtype(default_dtype)


def _describe(model: Model, recorder: RecordingAttention) -> ModelOutline:
    weights = list(model.parameters())
    return ModelOutline(
        layers=tuple(recorder.layers),
        kv_cache_specs=tuple(model.kv_cache_specs()),
        num_parameters=sum(weight.numel() for weight in weights),
        weight_bytes=sum(weight.numel() * weight.itemsize for weight in weights),
    )
