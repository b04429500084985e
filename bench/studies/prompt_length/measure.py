"""Signals and errors of untouched generations under prompts of several lengths, with the same noise."""

from __future__ import annotations

import pandas as pd

from bench.errors import BadInput
from bench.pipeline.session import Session
from bench.spec.prompts import Prompts
from bench.studies.prompt_length.analysis import VALUES
from bench.studies.signals.measure import table

WORDS = (1, 2, 4, 8, 12)


def shortened(prompts: Prompts, words: int) -> Prompts:
    """Cut prompts short.

    Args:
        prompts: prompts of full length.
        words: number of words of each prompt that are kept.

    Returns:
        Prompts of the first so many words, negative ones whole.
    """
    texts = tuple(" ".join(text.split()[:words]) for text in prompts.texts)
    return prompts.model_copy(update={"texts": texts})


def check(prompts: Prompts) -> None:
    """Check that every prompt has as many words as the longest length studied.

    Args:
        prompts: prompts of full length.

    Raises:
        BadInput: one is too short; naming it.
    """
    for number, text in enumerate(prompts.texts, 1):
        if len(text.split()) < WORDS[-1]:
            raise BadInput(
                f"prompt-length: --prompts: {prompts.file}: prompt {number} has {len(text.split())} words;"
                f" needed: at least {WORDS[-1]}"
            )


def measured(session: Session, count: int) -> pd.DataFrame:
    """The rows of `bench.studies.signals.measure.table` for each prompt at each length.

    Args:
        session: a text model with the full prompts; image i has prompt i and the same noise at all lengths.
        count: of prompts.

    Returns:
        One row an image, step and layer, as `kept` leaves it; `label` is the prompt's number, `words` its
        length.
    """
    prompts = session.spec.prompts
    assert prompts is not None
    tables = []
    for words in WORDS:
        spec = session.spec.model_copy(update={"prompts": shortened(prompts, words)})
        tables.append(table(session.under(spec), count).assign(words=words))
    return kept(pd.concat(tables, ignore_index=True))


def kept(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep what the study asks, like values next to each other.

    Args:
        rows: one an image, step and layer.

    Returns:
        The columns that the exponents need, to three digits.
    """
    order = ["step", "layer", "label", "words"]
    kept = rows[[*order, *VALUES]].sort_values(order, ignore_index=True)
    return kept.assign(**{name: kept[name].map(lambda value: float(f"{value:.3g}")) for name in VALUES})
