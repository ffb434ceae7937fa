"""`LengthPredictor`: how many tokens a request will generate, learned from those that ended before it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from vcore.interfaces.scheduling import RequestView

__all__ = ["LengthPredictor"]

_Class = tuple[object, ...]

_STRENGTH = 4.0
"""How many observed requests the mean of the coarser class weighs as much as."""
_MEMORY = 256
"""The mean of a class is over about so many requests, so that it follows a change."""


@dataclass(slots=True)
class _Mean:
    count: int = 0
    value: float = 0.0

    def add(self, value: int) -> None:
        self.count = min(self.count + 1, _MEMORY)
        self.value += (value - self.value) / self.count


class LengthPredictor:
    """Mean lengths by what is known of a request on arrival, each class shrunk towards the next coarser one:

        all  >  tenant  >  and the power of 2 of max_tokens  >  and the power of 2 of the prompt's length

        estimate(class) = (count * mean + 4 * estimate(coarser class)) / (count + 4)

    the posterior mean of a normal prior (Efron and Morris, "Stein's Estimation Rule and Its Competitors", 1973), where
    the coarsest prior is a constant. It knows little, costs a microsecond, and needs no model; sizes in order are what
    a scheduler gains most from, even if they are rough (Fu et al., "Efficient LLM Scheduling by Learning to Rank",
    2024). Bounded: the classes that were not seen for longest are forgotten.
    """

    def __init__(self, initial_tokens: int, max_classes: int) -> None:
        """A predictor that knows nothing.

        Args:
            initial_tokens: the estimate until something ended.
            max_classes: most classes that are remembered.
        """
        self._initial = float(initial_tokens)
        self._max_classes = max_classes
        self._means: OrderedDict[_Class, _Mean] = OrderedDict()

    def __len__(self) -> int:
        """Classes that are remembered."""
        return len(self._means)

    def predict(self, request: RequestView) -> float:
        """Tokens that it will generate in all, from 1 to `max_tokens`."""
        estimate = self._initial
        for one in _classes(request):
            mean = self._means.get(one)
            if mean is None:
                break
            estimate = (mean.count * mean.value + _STRENGTH * estimate) / (mean.count + _STRENGTH)
        return min(max(estimate, 1.0), float(request.max_tokens))

    def learn(self, request: RequestView) -> None:
        """It ended; one that generated nothing, as it was aborted before, tells nothing."""
        length = request.num_output_tokens
        if not length:
            return
        for one in _classes(request):
            mean = self._means.get(one)
            if mean is None:
                mean = self._means[one] = _Mean()
            else:
                self._means.move_to_end(one)
            mean.add(length)
        while len(self._means) > self._max_classes:
            self._means.popitem(last=False)


def _classes(request: RequestView) -> Iterator[_Class]:
    """The classes that it belongs to, the coarsest first."""
    yield ()
    tenant = request.tenant
    yield (tenant,)
    limit = request.max_tokens.bit_length()
    yield (tenant, limit)
    yield (tenant, limit, request.num_prompt_tokens.bit_length())
