"""Text to token ids and back: a light wrapper over the ``tokenizers`` library, and incremental detokenising.

Names are loaded when first used; transformers is imported only where nothing lighter can do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcore._lazy import lazy_exports

if TYPE_CHECKING:
    from vcore.tokenizer.loading import load_tokenizer as load_tokenizer
    from vcore.tokenizer.streams import TokenStream as TokenStream
    from vcore.tokenizer.tokenizer import Tokenizer as Tokenizer

_EXPORTS = {
    "loading": ("load_tokenizer",),
    "streams": ("TokenStream",),
    "tokenizer": ("Tokenizer",),
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
