"""Published next to measured: ratios agree, the limit is that of the published model, claims are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.record import Mean, Quality, Record, Reuse
from bench.spec.suite import Suite
from bench.studies import published_results, reproduce


def test_every_published_ratio_follows_from_its_plan() -> None:
    """All twenty rows agree to the digit, and another warm-up would not."""
    assert sum(len(table.rows) for table in published_results.TABLES) == 20
    assert reproduce.agree()
    row = published_results.TABLES[0].rows[0]
    wrong = published_results.Table("", "", (row._replace(options=row.options | {"warmup_fraction": 0.3}),))
    assert not reproduce.lines(wrong, {})[0].agrees


def test_every_row_is_measured_by_a_configuration_of_the_suite() -> None:
    """The suite has the configuration that each row names, with that row's options."""
    runs = {spec.name: spec.options for spec in Suite.load(reproduce.SUITE).specs()}
    for table in published_results.TABLES:
        for row in table.rows:
            given = {"layer_fraction": 0.33, "warmup_fraction": 0.2, "snr_low": 0.0}
            assert given | runs[row.run] == given | {"preset": "conservative"} | row.options


def test_the_limit_is_the_published_models() -> None:
    """Attention's share agrees with 8 n d² + 4 n² d a layer over all that a DiT-XL/2 and its decoder do."""
    layers, tokens, width = 28, 256, 1152
    attention = 2 * 50 * layers * (8 * tokens * width**2 + 4 * tokens**2 * width)
    mlp = 2 * 50 * layers * 16 * tokens * width**2
    share = reproduce.attention_share()
    assert share < attention / (attention + mlp)  # embeddings and decoder come on top
    assert share == pytest.approx(attention / (attention + mlp), rel=0.1)


def quality(drift: float) -> Quality:
    mean = Mean(mean=drift, low=drift, high=drift)
    return Quality.model_construct(drift=mean)


def made(name: str, drift: float, ratio: float, **resolved: float) -> Record:
    fields: dict[str, Any] = {"map": [[0]], "entropy": None, "snr": [1.0], "reasons": {}, "plan_ratio": None}
    reuse = Reuse(ratio=ratio, resolved=resolved, **fields)
    return Record(
        key="k", suite="reproduce", name=name, method="dqar", config={}, status="ok",
        environment={"machine": "here"}, reuse=reuse,
    ).model_copy(update={"quality": quality(drift)})  # fmt: skip


def test_the_page_states_agreement_and_claims(tmp_path: Path) -> None:
    """The page states that all ratios agree, and what the two options without effect do here."""
    records = [
        made("layers-layer_fraction=1.0", 0.3, 0.39),
        made("reverse-layer_fraction=1.0", 0.4, 0.39),
        made("entropy-entropy_quantile=0.25", 0.1, 0.12, entropy_threshold=2.5),
    ]
    text = reproduce.write_report(records, tmp_path).read_text()
    assert "20 of 20 published reuse ratios" in text
    assert "**no**" not in text
    assert "drift 0.300 [0.300, 0.300] shallow first, 0.400 [0.400, 0.400] deep first" in text
    assert "2.50 nats" in text
    assert "reuse 12.0% instead of 39.0%" in text
    assert text.count("not measured") >= 18
    table = pd.read_csv(tmp_path / "published.csv")
    assert list(table["plan_reuse_percent"]) == list(table["published_reuse_percent"])
    assert len(table) == 20 and table["here_drift"].notna().sum() == 1
