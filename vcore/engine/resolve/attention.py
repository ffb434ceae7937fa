"""Which attention backend: what it lists against what is needed. Capabilities are positive: unlisted is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from vcore.config import EngineConfig
from vcore.engine.resolve.decisions import Decision, not_considered
from vcore.engine.resolve.limits import Limits
from vcore.engine.resolve.lookup import selector
from vcore.errors import ConfigError
from vcore.plugins.catalog import Catalog
from vcore.plugins.complaints import broken_error
from vcore.plugins.entry import CatalogEntry
from vcore.plugins.specs import AttentionBackendSpec, AttentionCapabilities, PluginKind

if TYPE_CHECKING:
    import torch

    from vcore.engine.outline import ModelOutline
    from vcore.interfaces.attention import AttentionBackendContext

__all__ = ["AttentionNeeds", "attention_needs", "check_backend", "choose_backend", "resolve_block_size"]

T = TypeVar("T")

_LEFT_TO_BACKENDS = frozenset({"kv_write"})
"""What this version's layers can leave to a backend that fuses it."""
_BLOCK_SIZE = 16
"""Tokens a block holds, where nothing speaks against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNeeds:
    """What is needed of a backend."""

    device: torch.device
    dtype: torch.dtype
    outline: ModelOutline | None
    """Of the model; None if it cannot be described, so that its layers are first seen when it is built."""
    block_size: int | None
    """As configured; None leaves it to the backend."""
    limits: Limits
    max_model_len: int
    compute_capability: tuple[int, int] | None = None


def check_backend(
    capabilities: AttentionCapabilities,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | str | None,
    head_dims: Collection[int] = (),
    block_size: int | None = None,
    features: Collection[str] = (),
    compute_capability: tuple[int, int] | None = None,
) -> list[str]:
    """Why a backend of these capabilities cannot serve; empty if it can. What is None or empty is not checked.

    Args:
        capabilities: what the backend lists.
        device: where it is to run.
        dtype: of queries, keys and values.
        head_dims: of all layers.
        block_size: tokens a cache block holds; a multiple of one of the kernel's block sizes will do.
        features: as in `LayerSpec.required_features`, of all layers.
        compute_capability: of the CUDA device.
    """
    reasons = []
    if device is not None:
        kind = str(device).partition(":")[0]
        if kind not in capabilities.devices and "*" not in capabilities.devices:
            reasons.append(f"runs on {', '.join(capabilities.devices)}, not on {kind}")
    lowest = capabilities.min_compute_capability
    if lowest is not None and compute_capability is not None and compute_capability < lowest:
        reasons.append(f"needs compute capability {_dotted(lowest)}, found {_dotted(compute_capability)}")
    if dtype is not None:
        name = str(dtype).removeprefix("torch.")
        if name not in capabilities.dtypes:
            reasons.append(f"computes in {', '.join(capabilities.dtypes)}, not in {name}")
    if capabilities.head_dims is not None:
        unserved = sorted(set(head_dims) - set(capabilities.head_dims))
        if unserved:
            served = _numbers(capabilities.head_dims) or "of latent attention alone"
            reasons.append(f"serves head dimensions {served}, not {_numbers(unserved)}")
    if block_size is not None and not _fits(block_size, capabilities.block_sizes):
        sizes = _numbers(capabilities.block_sizes or ())
        reasons.append(f"needs blocks of a multiple of {sizes} tokens, not of {block_size}")
    lacking = sorted(set(features) - capabilities.features)
    if lacking:
        reasons.append(f"does not list {', '.join(lacking)}")
    beyond = sorted(capabilities.fuses - _LEFT_TO_BACKENDS)
    if beyond:
        reasons.append(f"fuses {', '.join(beyond)}, which layers of this version compute themselves")
    return reasons


def attention_needs(
    config: EngineConfig,
    device: torch.device,
    dtype: torch.dtype,
    limits: Limits,
    max_model_len: int,
    outline: ModelOutline | None,
) -> AttentionNeeds:
    """What `config` and a model's outline come to."""
    from vcore.engine.resolve.machine import compute_capability

    return AttentionNeeds(
        device=device,
        dtype=dtype,
        outline=outline,
        block_size=None if config.cache.block_size == "auto" else config.cache.block_size,
        limits=limits,
        max_model_len=max_model_len,
        compute_capability=compute_capability(device),
    )


def choose_backend(
    config: EngineConfig, catalog: Catalog, needs: AttentionNeeds
) -> tuple[CatalogEntry, Decision | None]:
    """The backend that is configured, or the best of those that can.

    The code of a backend whose capabilities do not suffice, or that is not the best of those that are left, is not
    imported.

    Raises:
        ConfigError: the one that is configured cannot serve, or none can; with every reason.
        PluginError: it is missing, broken or ambiguous.
    """
    choice = config.attention.backend
    if choice.is_auto:
        return _choose_best(catalog, needs)
    entry = catalog.find(PluginKind.ATTENTION_BACKEND, choice.name)
    reasons = _unlisted(entry, needs) or _own_reasons(entry, catalog, needs)
    if reasons:
        raise ConfigError(
            f"attention.backend: {entry.title} cannot serve here: {'; '.join(reasons)}. Change that, or write 'auto'."
        )
    return entry, None


def _choose_best(catalog: Catalog, needs: AttentionNeeds) -> tuple[CatalogEntry, Decision]:
    """Of those whose capabilities suffice, the highest rank that knows no reason of its own against it."""
    able, rejected = [], list(not_considered(catalog, PluginKind.ATTENTION_BACKEND))
    for entry in catalog.candidates(PluginKind.ATTENTION_BACKEND):
        reasons = _unlisted(entry, needs)
        if reasons:
            rejected.append((entry.address, tuple(reasons)))
        else:
            able.append(entry)
    while able:
        best = catalog.best(PluginKind.ATTENTION_BACKEND, able)
        able.remove(best)
        reasons = _own_reasons(best, catalog, needs)
        if not reasons:
            rejected += [(entry.address, ("it can, but its rank is lower",)) for entry in able]
            why = "the highest rank of those that can"
            value = selector(catalog, best)
            return best, Decision(key="attention.backend", value=value, why=why, rejected=tuple(rejected))
        rejected.append((best.address, tuple(reasons)))
    listed = "".join(f"\n  {address}: {'; '.join(reasons)}" for address, reasons in rejected)
    raise ConfigError(f"attention.backend: no installed backend can serve here{listed or ': none is installed'}")


def resolve_block_size(wanted: int | str, capabilities: AttentionCapabilities) -> tuple[int, Decision | None]:
    """Tokens a block holds: as configured (which `check_backend` has judged), 16, or the least above that fits."""
    if isinstance(wanted, int):
        return wanted, None
    sizes = capabilities.block_sizes
    if _fits(_BLOCK_SIZE, sizes) or not sizes:
        why = "the core's default, which the backend serves"
        return _BLOCK_SIZE, Decision(key="cache.block_size", value=_BLOCK_SIZE, why=why)
    least = min(-(-_BLOCK_SIZE // size) * size for size in sizes)
    why = f"the backend's kernels take multiples of {_numbers(sizes)}"
    return least, Decision(key="cache.block_size", value=least, why=why)


def _unlisted(entry: CatalogEntry, needs: AttentionNeeds) -> list[str]:
    """What the backend's capabilities do not cover."""
    outline = needs.outline
    return check_backend(
        cast(AttentionBackendSpec, entry.spec).capabilities,
        device=needs.device,
        dtype=needs.dtype,
        head_dims=() if outline is None else outline.head_dims,
        block_size=needs.block_size,
        features=() if outline is None else outline.features,
        compute_capability=needs.compute_capability,
    )


def _own_reasons(entry: CatalogEntry, catalog: Catalog, needs: AttentionNeeds) -> list[str]:
    """What the backend itself has against it; it is imported for that. Nothing if it is made by a function.

    Raises:
        PluginBrokenError: it cannot be imported, or raises.
    """
    from vcore.interfaces.attention import AttentionBackend, AttentionBackendContext

    backend, outline = catalog.load(entry), needs.outline
    if outline is None or not (isinstance(backend, type) and issubclass(backend, AttentionBackend)):
        return []
    wanted = "auto" if needs.block_size is None else needs.block_size
    context = AttentionBackendContext(
        device=needs.device,
        dtype=needs.dtype,
        block_size=resolve_block_size(wanted, cast(AttentionBackendSpec, entry.spec).capabilities)[0],
        max_num_seqs=needs.limits.max_num_seqs,
        max_num_batched_tokens=needs.limits.max_num_batched_tokens,
        max_model_len=needs.max_model_len,
    )
    told = _ask(entry, backend.unsupported_reasons, context, outline.plain_layers)
    if outline.latent_layers:
        told += _ask(entry, backend.unsupported_latent_reasons, context, outline.latent_layers)
    return told


def _ask(
    entry: CatalogEntry,
    method: Callable[[AttentionBackendContext, Sequence[T]], Sequence[str]],
    context: AttentionBackendContext,
    layers: Sequence[T],
) -> list[str]:
    try:
        return list(method(context, layers))
    except Exception as error:
        found = f"{method.__name__} raised {type(error).__name__}: {error}"
        raise broken_error(entry, found, expected="a list of reasons") from error


def _fits(block_size: int, kernel_sizes: Collection[int] | None) -> bool:
    return kernel_sizes is None or any(block_size % size == 0 for size in kernel_sizes)


def _numbers(values: Collection[int]) -> str:
    return ", ".join(str(value) for value in values)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
