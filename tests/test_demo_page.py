"""What the demo says about its own numbers."""

from __future__ import annotations

from uptal.recipes.demo import demo_corpus
from uptal.recipes.demo_page import SECOND, comparison, finding, other_localizer
from uptal.synthetic.frozen import CORPORA


def _results(**average_map: float) -> dict:
    def row(value: float) -> dict:
        scores = {"average_mAP": value, "mAP": {"0.50": 2 * value}, "AUC": 0.7, "AR": {"1": 0.2, "10": 0.5}}
        return scores | {"class_accuracy": 0.5, "pairs": 1600, "clips": 25600, "seconds": 61.0}

    return {name: row(value) for name, value in average_map.items()}


def test_the_finding_orders_the_encoders_and_says_what_labels_are_worth():
    said = finding(_results(random=0.02, frame_difference=0.01, moco=0.08, pal=0.05, tac=0.30))
    assert "tac 30.0 > moco 8.0 > pal 5.0 > random 2.0 > frame_difference 1.0" in said
    assert "28.0 points over an untrained encoder" in said
    assert "1,600 pairs" in said


def test_differences_that_one_seed_cannot_show_are_called_ties():
    said = finding(_results(random=0.05, frame_difference=0.01, moco=0.06, pal=0.05, tac=0.30))
    assert "below tac" in said and "not to be told from random and moco" in said and "above frame_difference" in said
    assert "above random and frame_difference" in finding(
        _results(random=0.02, frame_difference=0.01, moco=0.08, pal=0.09, tac=0.30)
    )


def test_every_encoder_has_a_row_with_its_budget_and_its_classes():
    results = _results(random=0.02, frame_difference=0.01, moco=0.08, pal=0.05, tac=0.30)
    table = comparison(results)
    assert len(table.rows) == 5 and all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows[0][1] == 50.0 and table.rows[0][-3:] == [1600, 25600, 61.0]


def test_the_second_localizer_has_a_row_for_the_encoders_that_it_was_trained_on():
    results = _results(random=0.02, frame_difference=0.01, moco=0.08, pal=0.05, tac=0.30)
    results["tac"][SECOND] = results["tac"]
    assert [row[0] for row in other_localizer(results).rows] == ["TAC (supervised, labels)"]


def test_the_demo_shares_no_seed_with_an_experiment():
    assert demo_corpus().seed not in {config.seed for config in CORPORA.values()}
