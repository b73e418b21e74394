"""Task-wise early stopping: the published criterion by hand, and who leaves when."""

import math

import pytest

from facemtl.training.early_stopping import TaskStopper, stop_score


@pytest.mark.parametrize(
    ("train", "validation", "k", "importance", "score"),
    [
        # median 2, k med = 6, sum 8: 6 / (8 - 6) = 3; (2 - 1) / 1 = 1
        ([5, 2, 1], 2.0, 3, 1.0, 3.0),
        # the same, half as large for a task twice as important
        ([5, 2, 1], 2.0, 3, 2.0, 1.5),
        # only the last three count for the trend, but the best epoch is the second: (2 - 0.5) / 0.5 = 3
        ([9, 0.5, 5, 2, 1], 2.0, 3, 1.0, 9.0),
        # falling ever faster: k med = 12, sum 11: 12 / -1 = -12
        ([5, 4, 2], 4.0, 3, 1.0, -12.0),
        # an even window: median (4 + 2) / 2 = 3, k med = 12, sum 16: 12 / 4 = 3; (3 - 1) / 1 = 2
        ([9, 4, 2, 1], 3.0, 4, 1.0, 6.0),
        # validation better than training
        ([5, 2, 1], 0.5, 3, 1.0, -1.5),
    ],
)
def test_the_criterion_by_hand(train, validation, k, importance, score):
    assert stop_score(train, validation, k, importance) == pytest.approx(score)


@pytest.mark.parametrize(("validation", "score"), [(2.0, math.inf), (0.5, -math.inf), (1.0, 0.0)])
def test_a_training_error_that_stands_still_is_decided_by_the_validation_error(validation, score):
    assert stop_score([1.0, 1.0, 1.0], validation, 3, 1.0) == score


def test_a_training_error_of_zero_is_no_division_by_zero():
    assert stop_score([0.0, 0.0], 1.0, 2, 1.0) == math.inf
    assert math.isfinite(stop_score([3.0, 1.0, 0.0], 1.0, 3, 1.0))


def stopper(**changes) -> TaskStopper:
    return TaskStopper(**{"k": 3, "threshold": 2.0, **changes})


def feed(stopper: TaskStopper, train: list[float], validation: float = 2.0, task: str = "smile") -> list[int]:
    """The epochs, counted from 1, at which the task leaves."""
    return [
        epoch for epoch, error in enumerate(train, start=1) if task in stopper.update({task: error}, {task: validation})
    ]


def test_a_task_stops_once_and_for_ever():
    some = stopper()
    assert feed(some, [5, 2, 1]) == [3]  # the score is 3, over 2
    assert some.stopped == {"smile": 3}
    assert feed(some, [5, 2, 1, 1, 1]) == []
    assert some.stopped == {"smile": 3}


def test_nothing_stops_before_k_epochs():
    assert feed(stopper(k=4, threshold=-math.inf), [5, 2, 1, 1]) == [4]


def test_the_score_must_exceed_the_threshold():
    assert feed(stopper(threshold=3.0), [5, 2, 1]) == []
    assert feed(stopper(threshold=2.999), [5, 2, 1]) == [3]


def test_an_important_task_stays_longer():
    assert feed(stopper(importance={"smile": 2.0}), [5, 2, 1]) == []  # 1.5, under 2
    assert feed(stopper(importance={"pose": 2.0}), [5, 2, 1]) == [3]


def test_tasks_are_judged_one_by_one():
    some = stopper()
    errors = {"smile": [5, 2, 1], "pose": [5, 4, 2]}
    leaving = [some.update({t: e[i] for t, e in errors.items()}, {"smile": 2.0, "pose": 4.0}) for i in range(3)]
    assert leaving == [[], [], ["smile"]]
    assert some.train == {"smile": [5, 2, 1], "pose": [5, 4, 2]}


def test_an_error_that_is_no_number_stops_nothing():
    assert feed(stopper(), [5, 2, math.nan]) == []
