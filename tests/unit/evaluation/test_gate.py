import pytest

from evaluation.errors import EvaluationError
from evaluation.summaries.gate import check_drop
from evaluation.summaries.summary import MEAN_BY_TASK, Against, MeanLine, Summary, TaskLine

OTHER = Against(label="the one before", means={}, tasks={})


def mean(name: str, score: float, against: float | None) -> MeanLine:
    return MeanLine(name=name, score=score, partial=score, num_there=1, num_all=1, against=against)


def task(name: str, score: float | None) -> TaskLine:
    return TaskLine(name=name, type="STS", metric="m", score=score, against=None, missing=(), subsets=())


def summary(*means: MeanLine, tasks: tuple[TaskLine, ...] = (), against: Against = OTHER) -> Summary:
    return Summary(
        model="m", revision="r", described="all", against=against, means=means, common=None, tasks=tasks, languages=()
    )


@pytest.mark.parametrize("score", [70.0, 69.5, 71.0])
def test_a_drop_up_to_the_limit_passes(score):
    check_drop(summary(mean(MEAN_BY_TASK, score, 70.0)), 0.5)


def test_a_larger_drop_of_any_mean_is_refused_by_name():
    means = mean(MEAN_BY_TASK, 70.0, 70.1), mean("STS", 79.25, 80.0)
    with pytest.raises(EvaluationError, match=r"^more than 0\.5 points lower: STS by 0\.75$"):
        check_drop(summary(*means), 0.5)


def test_no_drop_at_all_can_be_asked_for():
    check_drop(summary(mean(MEAN_BY_TASK, 70.0, 70.0)), 0.0)
    with pytest.raises(EvaluationError):
        check_drop(summary(mean(MEAN_BY_TASK, 69.99, 70.0)), 0.0)


def test_a_missing_task_is_refused_however_good_the_rest_is():
    missing = summary(mean(MEAN_BY_TASK, 90.0, 70.0), tasks=(task("A", None), task("B", 90.0), task("C", None)))
    with pytest.raises(EvaluationError, match=r"^no score for A, C$"):
        check_drop(missing, 0.5)


def test_a_task_that_the_other_lacks_is_refused():
    against = Against(label="the one before", means={}, tasks={}, missing=("B",))
    with pytest.raises(EvaluationError, match=r"^the one before has no score for B$"):
        check_drop(summary(mean("STS", 90.0, 70.0), against=against), 0.5)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(EvaluationError, match=r"^the one before has no mean of these tasks$"):
        check_drop(summary(mean(MEAN_BY_TASK, 90.0, None)), 0.5)
