import pytest

from keyreel.errors import Problem, RequestError, gather


async def succeed(value: int) -> int:
    return value


async def refuse(index: int) -> int:
    raise RequestError.at(("images", index, "image_url"), "It is broken.", "image_load_error")


async def fail() -> int:
    raise OSError("disk full")


async def test_gather_returns_results_in_order() -> None:
    assert await gather([succeed(2), succeed(1)]) == [2, 1]


async def test_gather_reports_all_problems_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        await gather([refuse(0), succeed(1), refuse(2)])
    assert [problem.loc[1] for problem in caught.value.problems] == [0, 2]


async def test_gather_raises_other_exceptions_as_they_are() -> None:
    with pytest.raises(OSError, match="disk full"):
        await gather([fail(), succeed(1)])


def test_error_text_has_locations_and_messages() -> None:
    error = RequestError(Problem(("seed",), "It is too large.", "less_than"), Problem((), "It is empty.", "missing"))
    assert str(error) == "seed: It is too large.; It is empty."
