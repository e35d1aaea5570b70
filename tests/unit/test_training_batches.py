"""What a step sees depends on the seed and the step, never on the number of ranks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evergreen.training.data.batches import BatchOrder, Noise, noise_for, share_of

sizes = st.integers(1, 300)


@given(rows=sizes, batch_size=sizes, seed=st.integers(-5, 2**63))
def test_every_epoch_visits_each_row_exactly_once(rows: int, batch_size: int, seed: int) -> None:
    order = BatchOrder(rows, batch_size, epochs=2, seed=seed)

    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        seen = np.concatenate([order.global_batch(step) for step in steps])
        assert sorted(seen) == list(range(rows))


@given(rows=st.integers(0, 300), ranks=st.integers(1, 9))
def test_ranks_share_a_batch_without_losing_or_doubling_a_row(rows: int, ranks: int) -> None:
    batch = list(range(rows))

    parts = [batch[share_of(rank, ranks, rows)] for rank in range(ranks)]

    assert [row for part in parts for row in part] == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(step=st.integers(0, 59))
def test_a_step_asked_for_out_of_turn_is_the_same_step(step: int) -> None:
    walked = BatchOrder(100, 10, epochs=6, seed=3)
    for earlier in range(step):
        walked.global_batch(earlier)

    assert np.array_equal(walked.global_batch(step), BatchOrder(100, 10, epochs=6, seed=3).global_batch(step))


def test_two_epochs_have_different_orders() -> None:
    order = BatchOrder(1_000, 1_000, epochs=2, seed=3)

    assert not np.array_equal(order.global_batch(0), order.global_batch(1))


def a_noise(step: int = 5, seed: int = 1) -> Noise:
    return noise_for(seed, step, slice(0, 4_000), numerics=3, categoricals=2, hidden=(16, 8), dropout=0.3)


def test_noise_is_the_same_for_the_same_step_and_new_for_the_next() -> None:
    assert np.array_equal(a_noise().numeric, a_noise().numeric)
    assert not np.array_equal(a_noise().numeric, a_noise(step=6).numeric)
    assert not np.array_equal(a_noise().numeric, a_noise(seed=2).numeric)


@given(start=st.integers(0, 600), rows=st.integers(0, 400))
def test_a_rows_noise_does_not_depend_on_who_draws_it(start: int, rows: int) -> None:
    whole = noise_for(1, 5, slice(0, 1_000), numerics=3, categoricals=2, hidden=(16, 8), dropout=0.3)

    part = noise_for(1, 5, slice(start, start + rows), numerics=3, categoricals=2, hidden=(16, 8), dropout=0.3)

    expected = whole[slice(start, start + rows)]
    assert np.array_equal(part.numeric, expected.numeric)
    assert np.array_equal(part.hide, expected.hide)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(part.keep, expected.keep, strict=True))


def test_noise_leaves_and_hides_the_shares_it_should() -> None:
    noise = a_noise()

    assert [mask.shape for mask in noise.keep] == [(4_000, 16), (4_000, 8)]
    assert abs(noise.keep[0].mean() - 0.7) < 0.01
    assert abs(noise.hide.mean() - 0.01) < 0.005
    assert abs(noise.numeric.std() - 1.0) < 0.03


def test_without_dropout_everything_is_kept() -> None:
    noise = noise_for(0, 0, slice(0, 50), numerics=0, categoricals=0, hidden=(4,), dropout=0.0)

    assert noise.keep[0].all()
