"""The ``hub`` source: models on the Hugging Face hub, or whatever speaks its protocol."""

from __future__ import annotations

import fnmatch
import logging
from pathlib import Path
from typing import Any

from vcore.errors import DownloadError, ModelError, ModelNotFoundError
from vcore.interfaces.sources import ModelSource, ModelSourceContext
from vcore_model_zoo.loaders.safetensors_files import find_safetensors
from vcore_model_zoo.sources.hub_errors import translate
from vcore_model_zoo.sources.hub_progress import progress_bar_class
from vcore_model_zoo.sources.options import HubOptions

__all__ = ["HubSource"]

logger = logging.getLogger(__name__)

_SMALL_FILES = (
    "*.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "merges.txt",
    "vocab.txt",
    "*.model",
    "*.tiktoken",
)
"""What is fetched beside the weights, by pattern; files in other folders are not."""
_WEIGHTS = "*.safetensors"
_NOT_WEIGHTS = ("consolidated*.safetensors", "adapter_model.safetensors")
"""Second copies in another layout, and adapters."""


class HubSource(ModelSource):
    """Fetches with ``huggingface_hub``: a connection that breaks is taken up again, a later run fetches only the files
    that are missing, several processes may run at once, and the cache is shared with other programs unless
    `HubOptions.cache_dir` says otherwise. Safetensors unless a GGUF file is asked for.
    """

    def __init__(self, *, options: HubOptions | None, context: ModelSourceContext) -> None:
        """Nothing is looked up yet."""
        self._options = options or HubOptions()
        self._progress = context.progress
        self._offline = context.offline

    def fetch(self, name: str, *, from_file: Path | None = None) -> Path:
        if from_file is not None:
            raise ModelNotFoundError(
                f"{name} comes from the hub, not from an archive ({from_file}): leave --from out, or unpack the "
                "archive and give its folder as the model"
            )
        if self._offline:
            return self._fetch_offline(name)
        try:
            small, weights = self._choose(name, self._list_files(name))
            # Small files first, so that whole weights mean a whole model.
            self._download(name, small)
            folder = self._download(name, weights)
        except ModelError:
            raise
        except Exception as error:  # of whichever HTTP library this huggingface_hub uses
            found = self._find_cached(name)
            if found is None or not _is_about_network(error):
                raise translate(name, error, self._options) from error
            logger.warning("the hub cannot be reached (%s); using the cached copy of %s", type(error).__name__, name)
            return self._result(found)
        return self._result(folder)

    def _fetch_offline(self, name: str) -> Path:
        found = self._find_cached(name)
        if found is None:
            raise DownloadError(
                f"model {name!r} is not in the cache whole, and model.offline forbids to fetch it. Run "
                f"vcore pull {name} where there is a network, or point model.path at a folder that holds it."
            )
        return self._result(found)

    def _list_files(self, name: str) -> list[str]:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._options.endpoint, token=self._token())
        return list(api.list_repo_files(name, revision=self._options.revision))

    def _choose(self, name: str, files: list[str]) -> tuple[list[str], list[str]]:
        """The small files and the weights to fetch.

        Raises:
            ModelNotFoundError: the repository has no weights of the wanted form.
        """
        if self._options.gguf_file is not None:
            weights = fnmatch.filter(files, self._options.gguf_file)
            if len(weights) != 1:
                have = ", ".join(sorted(fnmatch.filter(files, "*.gguf"))) or "none"
                raise ModelNotFoundError(
                    f"gguf_file={self._options.gguf_file!r} matches {len(weights)} files of {name}, expected one; its "
                    f".gguf files: {have}"
                )
            return [], weights
        top = [file for file in files if "/" not in file]
        weights = [file for file in fnmatch.filter(top, _WEIGHTS) if not _matches(file, _NOT_WEIGHTS)]
        if not weights:
            raise ModelNotFoundError(_no_weights(name, files))
        return [
            file for file in files if _matches(file, _SMALL_FILES) and (file in top or "templates/" in file)
        ], weights

    def _download(self, name: str, files: list[str]) -> Path:
        return Path(self._snapshot(name, files, tqdm_class=progress_bar_class(f"Downloading {name}", self._progress)))

    def _find_cached(self, name: str) -> Path | None:
        """The folder of a whole cached copy."""
        try:
            folder = Path(self._snapshot(name, [], local_files_only=True))
            if self._options.gguf_file is None:
                find_safetensors(folder)
                return folder if (folder / "config.json").exists() else None
        except Exception:  # whatever is wrong with the cached copy, it does not serve
            return None
        return folder if list(folder.glob(self._options.gguf_file)) else None

    def _snapshot(self, name: str, files: list[str], **more: Any) -> str:
        from huggingface_hub import snapshot_download

        folder: str = snapshot_download(
            name,
            revision=self._options.revision,
            endpoint=self._options.endpoint,
            token=self._token(),
            cache_dir=self._options.cache_dir,
            allow_patterns=files,
            **more,
        )
        return folder

    def _result(self, folder: Path) -> Path:
        """The folder, or the one file if a GGUF file was asked for."""
        if self._options.gguf_file is None:
            return folder
        return next(iter(folder.glob(self._options.gguf_file)))

    def _token(self) -> str | None:
        return None if self._options.token is None else self._options.token.get_secret_value()


def _matches(file: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def _is_about_network(error: Exception) -> bool:
    """Whether the hub was not reached, or failed itself: not so if it answered that the model is not to be had."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status is None or int(status) >= 500


def _no_weights(name: str, files: list[str]) -> str:
    ggufs = sorted(fnmatch.filter(files, "*.gguf"))
    if ggufs:
        return (
            f"{name} has no .safetensors files but {len(ggufs)} .gguf files: {', '.join(ggufs[:8])}. Choose one with "
            "the hub source's option gguf_file."
        )
    if fnmatch.filter(files, "*.bin") or fnmatch.filter(files, "*.pt*"):
        return (
            f"{name} has only pickled weights, which vcore does not load, as they can run any code. Convert them with "
            "transformers' save_pretrained, or look for a repository with .safetensors files."
        )
    return f"{name} has no weights: expected .safetensors files, found {', '.join(sorted(files)[:8]) or 'nothing'}"
