"""Texts of tokens for a page, where the model's folder has a vocabulary."""

from __future__ import annotations

from llama_core.errors import LlamaCoreError
from llama_core.trace_report.figures import Label
from llama_core.traces.verdict import Comparison


def labels(result: Comparison, model: str | None) -> Label | None:
    """The text of the token at a sequence and position; None where there is no vocabulary, or it is another's."""
    if model is None:
        return None
    from llama_core.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.from_pretrained(model)
        texts = {id: tokenizer.token(id) for tokens in result.tokens.values() for id in tokens.values()}
    except LlamaCoreError:
        return None
    return lambda sequence, position: texts.get(result.tokens.get(sequence, {}).get(position, -1), str(position))
