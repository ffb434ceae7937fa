"""From a checkpoint's tensors to a model's parameters, by a declared mapping.

A layer says of which parts its parameters consist (`PartitionedModule.weight_parts`); a model says what
these parts are called in its checkpoints (`WeightMap`); `load_weights` reads each part, and of it only
what this rank needs, straight into its place. It knows no file format.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from vcore.errors import CapacityError, WeightsError
from vcore.interfaces.weights import CheckpointReader
from vcore.ops.linear import pack_linear_weight

__all__ = ["PartitionedModule", "WeightMap", "WeightPart", "load_weights", "packed", "parameter"]

_MAX_NAMED = 8
"""How many tensors an error names of each kind."""
_WHOLE_NUMBERS = frozenset({"bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"})
"""How `TensorInfo.dtype` calls what cannot be weights as it stands."""


@dataclass(frozen=True, slots=True)
class WeightPart:
    """One checkpoint tensor's place in a parameter."""

    shape: tuple[int, ...]
    """Of the whole tensor in the checkpoint."""
    source: tuple[slice, ...] | None = None
    """What this rank reads of it; None means all."""
    target: tuple[int | slice, ...] = ()
    """Where in the parameter it goes; empty means everywhere."""
    expert: int | None = None
    """Which expert's it is, in a layer that joins experts."""


class PartitionedModule(nn.Module, ABC):
    """A layer whose parameters are joined from several checkpoint tensors, or split over ranks."""

    @abstractmethod
    def weight_parts(self, parameter_name: str) -> Sequence[WeightPart]:
        """The parts of the parameter ``weight`` or ``bias``, in the order in which they are joined."""

    def weights_loaded(self) -> None:
        """Called once all weights of the model are in place: the time to put them into a kernel's layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightMap:
    """How the names of a model's parameters become those of its checkpoints."""

    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A joined layer to the checkpoint's layers, in the order in which they are joined, e.g.
    ``{"gate_up_proj": ("gate_proj", "up_proj")}``. One name for a layer of several parts: the checkpoint has them
    joined already. ``{expert}`` in a name stands for the number of the part's expert."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """A part of a parameter's name to what stands there in the checkpoint, e.g.
    ``{"self_attn.norm.": "input_layernorm."}``."""
    ignored: tuple[str, ...] = ()
    """Patterns (``*`` is anything) of checkpoint tensors that hold nothing to load, e.g. ``"*.inv_freq"``."""

    def checkpoint_parts(self, parameter_name: str, parts: Sequence[WeightPart]) -> list[tuple[str, WeightPart]]:
        """The tensors of the checkpoint that a parameter's `parts` are read from, each with its part.

        Raises:
            WeightsError: the mapping names another number of parts than the layer has.
        """
        for ours, theirs in self.rename.items():
            parameter_name = parameter_name.replace(ours, theirs)
        path, _, leaf = parameter_name.rpartition(".")
        parent, _, layer = path.rpartition(".")
        layers = self.stacked.get(layer, (layer,))
        experts = {part.expert for part in parts}
        per_expert = len(parts) // len(experts) if parts else 0
        if len(layers) != per_expert:
            if len(layers) > 1 or len(experts) > 1 or layer not in self.stacked:
                raise WeightsError(
                    f"the model's weight map joins {layer!r} from {len(layers)} tensors ({', '.join(layers)}), but "
                    f"the layer has {per_expert} parts. Name each of them in WeightMap.stacked."
                )
            parts = _pieces_of_one(parts)
        names = [layers[index % len(layers)].format(expert=part.expert) for index, part in enumerate(parts)]
        return [(".".join(filter(None, (parent, name, leaf))), part) for name, part in zip(names, parts, strict=True)]

    def ignores(self, checkpoint_name: str) -> bool:
        """Whether a tensor of this name may be there without being loaded."""
        return any(fnmatchcase(checkpoint_name, pattern) for pattern in self.ignored)


@dataclass(frozen=True, slots=True)
class _Target:
    """A part with its name and the piece of memory that it fills."""

    name: str
    part: WeightPart
    destination: torch.Tensor


def _pieces_of_one(parts: Sequence[WeightPart]) -> list[WeightPart]:
    """`parts` as pieces of a single tensor, in which they stand one after another along the first axis."""
    total = sum(part.shape[0] for part in parts)
    pieces, offset = [], 0
    for part in parts:
        rows, *rest = part.source or (slice(0, part.shape[0]), *(slice(None) for _ in part.shape[1:]))
        source = (slice(offset + rows.start, offset + rows.stop), *rest)
        pieces.append(replace(part, shape=(total, *part.shape[1:]), source=source))
        offset += part.shape[0]
    return pieces


def parameter(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    """An uninitialised parameter for inference.

    Raises:
        CapacityError: the device has no memory for it.
    """
    try:
        return nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)
    except RuntimeError as error:  # torch has no class of its own for a CPU that is out of memory
        gib = math.prod(shape) * dtype.itemsize / 2**30
        raise CapacityError(
            f"a weight of shape {list(shape)} does not fit the memory of {device}: it takes {gib:.1f} GiB in "
            f"{str(dtype).removeprefix('torch.')}. Free memory, split the model over more ranks "
            f"(runtime.tensor_parallel_size), or check the sizes in the model's config."
        ) from error


def packed(weight: nn.Parameter) -> nn.Parameter:
    """`weight` in the fastest layout for `vcore.ops.linear`; the same object if it is in that layout."""
    return nn.Parameter(pack_linear_weight(weight), requires_grad=False)


@torch.no_grad()
def load_weights(model: nn.Module, checkpoint: CheckpointReader, weight_map: WeightMap) -> None:
    """Fill every parameter of `model` from `checkpoint`.

    Names, shapes and kinds of numbers are compared before anything is read. A parameter that two layers
    share (tied embeddings) is read under the name where it is registered first; its other names may be
    in the checkpoint or not, and if they are, must hold the same. Synthetic checkpoints answer for any name,
    so nothing is compared. Layers may change the layout of their weights afterwards, so a model is loaded once.

    Raises:
        WeightsError: tensors are missing, surplus, of the wrong shape or whole numbers (the message names
            them), a tied one differs from what it is tied to, or the model has been loaded already.
    """
    if any(weight.is_mkldnn for weight in model.parameters()):
        raise WeightsError("this model's weights are loaded and packed already. Build the model again to reload it.")
    targets = list(_targets(model, weight_map))
    tied: Sequence[_Target] = ()
    if not checkpoint.synthetic:
        tied = _tied_and_stored(model, targets, checkpoint, weight_map)
        _compare([*targets, *tied], checkpoint, weight_map)
    for target in targets:
        checkpoint.read_into(target.destination, target.name, target.part.shape, target.part.source)
    for target in tied:
        _check_tied(target, checkpoint)
    for module in model.modules():
        if isinstance(module, PartitionedModule):
            module.weights_loaded()


def _targets(model: nn.Module, weight_map: WeightMap) -> Iterator[_Target]:
    modules = dict(model.named_modules())
    for name, tensor in model.named_parameters():
        path, _, leaf = name.rpartition(".")
        module = modules[path]
        parts: Sequence[WeightPart] = (WeightPart(tuple(tensor.shape)),)
        if isinstance(module, PartitionedModule):
            parts = module.weight_parts(leaf)
        for part_name, part in weight_map.checkpoint_parts(name, parts):
            yield _Target(part_name, part, tensor[part.target] if part.target else tensor)


def _tied_and_stored(
    model: nn.Module, targets: Sequence[_Target], checkpoint: CheckpointReader, weight_map: WeightMap
) -> list[_Target]:
    """Tensors of the checkpoint for parameters that are registered under another name already."""
    stored = checkpoint.tensors()
    first = {id(tensor): name for name, tensor in model.named_parameters()}
    by_name = {target.name: target for target in targets}
    found = []
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if name != first[id(tensor)]:
            names = (name, first[id(tensor)])
            alias, original = (weight_map.checkpoint_parts(one, [WeightPart(())])[0][0] for one in names)
            if alias in stored:
                found.append(replace(by_name[original], name=alias))
    return found


def _check_tied(target: _Target, checkpoint: CheckpointReader) -> None:
    """Hold a stored tensor to the parameter that has been loaded in its place: leaving it out must lose nothing."""
    tensor = checkpoint.read(target.name, target.part.shape, target.part.source)
    if tensor.is_meta or torch.equal(tensor.to(target.destination.dtype), target.destination.cpu()):
        return
    raise WeightsError(
        f"the model's config ties {target.name!r} to another tensor, but the checkpoint has one of its own for it, "
        f'which differs. Write "tie_word_embeddings": false in config.json to use it, or remove it from the checkpoint.'
    )


def _compare(targets: Sequence[_Target], checkpoint: CheckpointReader, weight_map: WeightMap) -> None:
    stored = checkpoint.tensors()
    wanted = {target.name: target.part.shape for target in targets}
    missing = [name for name in wanted if name not in stored]
    surplus = [name for name in stored if name not in wanted and not weight_map.ignores(name)]
    misshapen = [
        f"{name} (model {list(shape)}, checkpoint {list(stored[name].shape)})"
        for name, shape in wanted.items()
        if name in stored and tuple(stored[name].shape) != shape
    ]
    whole = [
        f"{name} ({stored[name].dtype})" for name in wanted if name in stored and stored[name].dtype in _WHOLE_NUMBERS
    ]
    found = [
        f"{len(names)} {kind}: {_enumerate(names)}"
        for kind, names in (
            ("missing", missing),
            ("surplus", surplus),
            ("of another shape", misshapen),
            ("of whole numbers, which need a scale to be weights", whole),
        )
        if names
    ]
    if found:
        raise WeightsError(
            f"the checkpoint does not fit the model, which has {len(wanted)} tensors. {'; '.join(found)}. "
            f"Check that the files are complete and belong to the config.json beside them."
        )


def _enumerate(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f", and {more} more" if more > 0 else "")
