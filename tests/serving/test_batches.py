import asyncio
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread, current_thread, main_thread
from types import SimpleNamespace
from typing import Any

import pytest

from evergreen.types import Prediction, Release
from serving import batches as batching
from serving.batches import Answers, Batches, Overloaded
from serving.loaded import LoadedModel
from serving.metrics import Metrics
from serving.scoring import Question
from tests.serving.serving_factories import NOON, a_prediction, a_spec, counted


class Answering:
    """Answers each question with its own number; slow while it is held."""

    def __init__(self) -> None:
        self.go = Event()
        self.go.set()
        self.entered = Event()
        self.batches: list[list[int]] = []
        self.threads: list[Thread] = []
        self.work: Callable[[int], object] = int
        """Called with the rows of each batch."""

    def __call__(self, questions: Sequence[Question]) -> Answers:
        self.batches.append([len(question) for question in questions])
        self.threads.append(current_thread())
        self.entered.set()
        assert self.go.wait(60)
        self.work(sum(self.batches[-1]))
        return [self._one(question) for question in questions]

    def _one(self, question: Question) -> list[Prediction] | Exception:
        if question.rows["wind"][0] == "broken":
            return ValueError("this one is broken")
        return [a_prediction(int(cell)) for cell in question.rows["wind"]]


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def batches(answering: Answering, metrics: Metrics) -> Iterator[Batches]:
    batches = Batches("taxi", answering, metrics)
    yield batches
    answering.go.set()
    batches.close()


def asked(*cells: Any, **serve: Any) -> Question:
    release = Release(model="taxi", champion=1, changed_at=NOON)
    loaded = LoadedModel(a_spec("taxi", serve=serve), release, versions={}, needs={})
    return Question(loaded, {"wind": list(cells)}, [None] * len(cells))


async def busy(batches: Batches, answering: Answering) -> "asyncio.Task[list[Prediction]]":
    """Ask something that keeps the thread busy until `go`."""
    answering.go.clear()
    first = asyncio.ensure_future(batches.ask(asked(0)))
    await asyncio.to_thread(answering.entered.wait, 10)
    return first


def test_a_question_alone_is_answered_alone_and_at_once(batches: Batches, answering: Answering) -> None:
    assert asyncio.run(batches.ask(asked(1, 2))) == [a_prediction(1), a_prediction(2)]
    assert answering.batches == [[2]]


def test_what_comes_while_it_is_busy_is_answered_together(
    batches: Batches, answering: Answering, metrics: Metrics
) -> None:
    async def ask() -> list[list[Prediction]]:
        first = await busy(batches, answering)
        others = [asyncio.ensure_future(batches.ask(asked(number))) for number in range(1, 9)]
        await asyncio.sleep(0)
        answering.go.set()
        return await asyncio.gather(first, *others)

    answers = asyncio.run(ask())

    assert answers == [[a_prediction(number)] for number in range(9)]
    assert answering.batches == [[1], [1] * 8]
    assert counted(metrics, "batch_rows_sum", model="taxi") == 9


def test_a_batch_has_at_most_so_many_rows_and_no_question_is_split(batches: Batches, answering: Answering) -> None:
    async def ask() -> None:
        first = await busy(batches, answering)
        others = [asyncio.ensure_future(batches.ask(asked(1, 2, 3, batch_rows=4))) for _ in range(3)]
        await asyncio.sleep(0)
        answering.go.set()
        await asyncio.gather(first, *others)

    asyncio.run(ask())

    assert answering.batches == [[1], [3], [3], [3]]


def test_many_rows_do_not_hold_up_single_ones(batches: Batches, answering: Answering) -> None:
    async def ask() -> None:
        first = await busy(batches, answering)
        answering.entered.clear()
        bulk = asyncio.ensure_future(batches.ask(asked(1, 2, 3, 4, 5, batch_rows=4)))
        await asyncio.to_thread(answering.entered.wait, 10)  # it has begun beside the one that is held
        answering.go.set()
        await asyncio.gather(first, bulk)

    asyncio.run(ask())

    assert answering.batches == [[1], [5]]


def test_a_question_that_breaks_leaves_its_neighbours_alone(batches: Batches, answering: Answering) -> None:
    async def ask() -> list[Any]:
        first = await busy(batches, answering)
        others = [asyncio.ensure_future(batches.ask(asked(cell))) for cell in (1, "broken", 2)]
        await asyncio.sleep(0)
        answering.go.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    _, one, broken, two = asyncio.run(ask())

    assert (one, two) == ([a_prediction(1)], [a_prediction(2)])
    assert isinstance(broken, ValueError)


def test_a_full_queue_refuses_and_recovers(batches: Batches, answering: Answering, metrics: Metrics) -> None:
    async def ask() -> None:
        first = await busy(batches, answering)
        second = asyncio.ensure_future(batches.ask(asked(1, queue_rows=2)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"2 rows wait for taxi, \[serve\].queue_rows is 2"):
            await batches.ask(asked(2, queue_rows=2))
        answering.go.set()
        await asyncio.gather(first, second)
        assert await batches.ask(asked(3, queue_rows=2)) == [a_prediction(3)]

    asyncio.run(ask())

    assert counted(metrics, "shed_total", model="taxi", why="full") == 1
    assert counted(metrics, "queue_rows", model="taxi") == 0


def test_a_question_larger_than_the_queue_is_answered_when_nobody_waits(batches: Batches) -> None:
    assert len(asyncio.run(batches.ask(asked(1, 2, 3, queue_rows=2, batch_rows=2)))) == 3


def test_who_waited_too_long_is_refused_without_being_answered(
    batches: Batches, answering: Answering, metrics: Metrics
) -> None:
    async def ask() -> None:
        first = await busy(batches, answering)
        late = asyncio.ensure_future(batches.ask(asked(1, timeout_seconds=0.01)))
        await asyncio.sleep(0.02)
        answering.go.set()
        await first
        with pytest.raises(Overloaded, match="in time"):
            await late

    asyncio.run(ask())

    assert answering.batches == [[1]]
    assert counted(metrics, "shed_total", model="taxi", why="late") == 1


def test_a_client_that_goes_away_gives_its_place_back(batches: Batches, answering: Answering, metrics: Metrics) -> None:
    async def ask() -> None:
        first = await busy(batches, answering)
        gone = asyncio.ensure_future(batches.ask(asked(1)))
        await asyncio.sleep(0)
        gone.cancel()
        answering.go.set()
        await asyncio.gather(first, gone, return_exceptions=True)

    asyncio.run(ask())

    assert answering.batches == [[1]]
    assert counted(metrics, "queue_rows", model="taxi") == 0


async def asleep(batches: Batches) -> None:
    """Until the thread sleeps it may take what was meant for the event loop."""
    while not batches._changed._waiters:  # type: ignore[attr-defined]
        await asyncio.sleep(0)


async def proven_quick(batches: Batches, answering: Answering) -> None:
    """Ask until the event loop answers, and it alone."""
    for _ in range(batching.PROVEN):
        await batches.ask(asked(0))
    assert main_thread() not in answering.threads
    await asleep(batches)
    answering.batches.clear()
    answering.threads.clear()


@pytest.fixture
def all_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is."""
    monkeypatch.setattr(batching, "QUICK_SECONDS", float("inf"))


@pytest.mark.usefixtures("all_quick")
def test_what_is_quick_is_answered_on_the_event_loop_and_what_comes_together_together(
    batches: Batches, answering: Answering, metrics: Metrics
) -> None:
    async def late() -> list[Prediction]:
        await asyncio.sleep(0)  # comes an iteration of the loop after the others
        return await batches.ask(asked(3))

    async def ask() -> list[Any]:
        await proven_quick(batches, answering)
        several = [batches.ask(asked(1)), late(), batches.ask(asked("broken"))]
        return await asyncio.gather(*several, return_exceptions=True)

    one, three, broken = asyncio.run(ask())

    assert (one, three) == ([a_prediction(1)], [a_prediction(3)])
    assert isinstance(broken, ValueError)
    assert (answering.batches, answering.threads) == ([[1, 1, 1]], [main_thread()])
    assert counted(metrics, "queue_rows", model="taxi") == 0


@pytest.mark.usefixtures("all_quick")
@pytest.mark.parametrize(("loop_rows", "batch_rows"), [(4, 64), (32, 4)])
def test_the_event_loop_takes_so_many_rows_at_a_time_and_refuses_who_waited_too_long(
    batches: Batches, answering: Answering, monkeypatch: pytest.MonkeyPatch, loop_rows: int, batch_rows: int
) -> None:
    monkeypatch.setattr(batching, "LOOP_ROWS", loop_rows)

    async def ask() -> list[Any]:
        await proven_quick(batches, answering)
        several = [batches.ask(asked(*cells, batch_rows=batch_rows)) for cells in [(1, 2, 3)] * 3 + [(9,)]]
        late = batches.ask(asked(0, timeout_seconds=1e-9, batch_rows=batch_rows))
        return await asyncio.gather(late, *several, return_exceptions=True)

    late, *others = asyncio.run(ask())

    assert isinstance(late, Overloaded)
    assert others == [[a_prediction(1), a_prediction(2), a_prediction(3)]] * 3 + [[a_prediction(9)]]
    assert answering.batches == [[3], [3], [3, 1]]
    assert set(answering.threads) == {main_thread()}


@pytest.mark.usefixtures("all_quick")
def test_a_slow_batch_sends_the_next_ones_back_to_the_thread(
    batches: Batches, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        await proven_quick(batches, answering)
        monkeypatch.setattr(batching, "QUICK_SECONDS", 0.0)
        await batches.ask(asked(1))
        monkeypatch.setattr(batching, "QUICK_SECONDS", float("inf"))
        for number in range(batching.PROVEN):
            await batches.ask(asked(number))
        await asleep(batches)
        await batches.ask(asked(batching.PROVEN))

    asyncio.run(ask())

    first, *others, last = answering.threads
    assert (first, last) == (main_thread(), main_thread())
    assert len(others) == batching.PROVEN
    assert main_thread() not in others


def test_a_closed_queue_refuses(answering: Answering, metrics: Metrics) -> None:
    batches = Batches("taxi", answering, metrics)
    batches.close()

    with pytest.raises(Overloaded):
        asyncio.run(batches.ask(asked(1)))


@pytest.mark.parametrize(("row_seconds", "is_quick"), [(0.0005, True), (0.001, False)])
def test_of_more_rows_than_the_event_loop_takes_at_a_time_their_share_has_to_be_quick(
    batches: Batches, answering: Answering, monkeypatch: pytest.MonkeyPatch, row_seconds: float, is_quick: bool
) -> None:
    clock = [0.0]
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    answering.work = lambda rows: clock.append(clock.pop() + rows * row_seconds)

    async def ask() -> None:
        for _ in range(batching.PROVEN):
            await batches.ask(asked(*range(2 * batching.LOOP_ROWS), batch_rows=64))
        await asleep(batches)
        await batches.ask(asked(1))

    asyncio.run(ask())

    assert (answering.threads[-1] == main_thread()) == is_quick
    assert main_thread() not in answering.threads[:-1]
