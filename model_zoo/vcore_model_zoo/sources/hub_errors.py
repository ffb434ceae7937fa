"""What went wrong at the hub, in words that say what to do."""

from __future__ import annotations

from vcore.errors import DownloadError, ModelError, ModelNotFoundError
from vcore_model_zoo.sources.options import HubOptions

__all__ = ["translate"]


def translate(name: str, error: Exception, options: HubOptions) -> ModelError:
    """The error to raise for `error`, which ``huggingface_hub`` or its HTTP library raised for model `name`."""
    from huggingface_hub import errors

    hub = options.endpoint or "the Hugging Face hub"
    token = "The token in the hub source's options" if options.token is not None else "A token (hf auth login)"
    if isinstance(error, errors.HFValidationError):
        return ModelNotFoundError(f"{name!r} is no model name of {hub}: expected OWNER/NAME ({_first_line(error)})")
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(
            f"{name} is gated on {hub}: accept its terms on its page there. {token} must then belong to the account "
            "that did."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(
            f"{name} on {hub} has no revision {options.revision!r}; check the branch, tag or commit"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"{hub} has no model {name!r}, or it is private. Check the name. {token} must have access to a private one."
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return DownloadError(f"{hub} refuses access to {name} (HTTP {status}). {token} must be valid and have access.")
    if status is not None:
        return DownloadError(f"{hub} answered HTTP {status} for {name}: {_first_line(error)}. Try again later.")
    return DownloadError(
        f"{name} could not be fetched from {hub}: {type(error).__name__}: {_first_line(error)}. Check the network and "
        "the proxy, and run the command again: files that have arrived are kept. Where there is no network, set "
        "model.offline to use what is in the cache."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
