"""`ServedModels`: the names by which clients know the model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcore.server.errors import ApiError
from vcore.server.protocol.models import ModelCard, ModelList

if TYPE_CHECKING:
    from vcore.server.engine_client import EngineClient

__all__ = ["ServedModels"]


class ServedModels:
    """One model, by one name or several."""

    def __init__(self, engine: EngineClient, names: Sequence[str]) -> None:
        """Serve the engine's model as `names`; without any, as its path."""
        self._path = engine.config.model.path
        self._names = tuple(names) or (self._path,)
        self._max_model_len = engine.max_model_len
        self._created = int(time.time())

    @property
    def default(self) -> str:
        """The first name."""
        return self._names[0]

    def check(self, name: str | None) -> str:
        """`name`, or the first one if it is None.

        Raises:
            ApiError: 404, no model has that name.
        """
        if name is None:
            return self.default
        if name not in self._names:
            known = ", ".join(self._names)
            message = f"the model {name[:200]!r} does not exist here; there is {known}"
            raise ApiError(404, message, code="model_not_found", param="model")
        return name

    def card(self, name: str) -> ModelCard:
        """What is told of the model. Raises as `check`."""
        return {
            "id": self.check(name),
            "object": "model",
            "created": self._created,
            "owned_by": "vcore",
            "root": self._path,
            "max_model_len": self._max_model_len,
        }

    def cards(self) -> ModelList:
        """All names."""
        return {"object": "list", "data": list(map(self.card, self._names))}
