"""When a training is given up: only for what the champion does better on days it has not learnt from."""

from datetime import date, timedelta

import pytest

from evergreen.rival import Rival, has_not_seen
from evergreen.types import DayLoss, Progress
from tests.factories import MAY, a_training_set

FIRST, SECOND = date(2013, 4, 25), date(2013, 4, 28)


def losses(*days: tuple[date, int, float]) -> tuple[DayLoss, ...]:
    return tuple(DayLoss(day=day, rows=rows, loss_sum=rows * loss) for day, rows, loss in days)


def at_epoch(epoch: int, by_day: tuple[DayLoss, ...], epochs: int = 4) -> Progress:
    return Progress(step=epoch * 10, steps=epochs * 10, epoch=epoch, epochs=epochs, validation_by_day=by_day)


CHAMPION = Rival(version=3, margin=0.02, by_day=losses((FIRST, 100, 0.40), (SECOND, 300, 0.50)))


def test_too_far_above_the_champion_it_is_given_up_and_says_so() -> None:
    reason = CHAMPION.beats(at_epoch(2, losses((FIRST, 100, 0.50), (SECOND, 300, 0.50))))

    assert reason == (
        "given up after epoch 2 of 4: on 2 validation days that champion 3 has not trained on the loss is 0.5000, the "
        "champion's 0.4750, and [train].abandon_margin is 0.02"
    )


def test_within_the_margin_it_goes_on() -> None:
    assert CHAMPION.beats(at_epoch(2, losses((FIRST, 100, 0.41), (SECOND, 300, 0.51)))) is None


def test_days_the_champion_has_trained_on_do_not_count() -> None:
    seen = date(2013, 3, 1)

    assert CHAMPION.beats(at_epoch(2, losses((seen, 10_000, 5.0), (FIRST, 100, 0.40)))) is None
    assert CHAMPION.beats(at_epoch(2, losses((seen, 10_000, 5.0)))) is None


ASKED = [(1, 4, False), (2, 4, True), (3, 4, True), (4, 4, False), (1, 3, False), (2, 3, True), (1, 1, False)]


@pytest.mark.parametrize(("epoch", "epochs", "judged"), ASKED)
def test_it_is_asked_from_half_of_the_epochs_on_and_not_after_the_last(epoch: int, epochs: int, judged: bool) -> None:
    bad = losses((FIRST, 100, 0.9))

    assert (CHAMPION.beats(at_epoch(epoch, bad, epochs)) is not None) == judged


def test_between_epochs_nothing_is_asked() -> None:
    assert CHAMPION.beats(Progress(step=25, steps=40, epoch=3, epochs=4, loss=9.0)) is None


def test_the_champion_has_seen_the_days_before_its_holdout() -> None:
    champion = a_training_set()  # its holdout starts a week before May, at midnight

    start = (MAY - timedelta(days=7)).date()
    assert has_not_seen(champion, start)
    assert not has_not_seen(champion, start - timedelta(days=1))
