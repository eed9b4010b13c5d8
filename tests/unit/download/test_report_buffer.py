"""What is to be told to the scheduler: nothing is lost, and nothing told twice."""

from __future__ import annotations

from dragonfly_ray.scheduling.download.report_buffer import FED_S, ReportBuffer


def test_what_could_not_be_told_goes_before_what_came_since() -> None:
    buffer = ReportBuffer()
    buffer.news.got.append(1)
    buffer.news.misled.append(("h1", 1))
    taken = buffer.take(0.0)
    assert not buffer
    buffer.news.got.append(2)
    buffer.put_back(taken)
    assert buffer.take(0.0).pending.got == [1, 2]
    assert not buffer.take(0.0).pending


def test_bytes_of_parents_are_gathered_and_told_once() -> None:
    buffer = ReportBuffer(10.0)
    buffer.feeds("h1", 100)
    buffer.feeds("h2", 1)
    buffer.feeds("h1", 50)
    assert buffer.take(10.0 + FED_S / 2).fed == ()
    assert buffer
    taken = buffer.take(10.1 + FED_S)
    assert taken.fed == (("h1", 150), ("h2", 1))
    assert not buffer
    buffer.feeds("h1", 7)
    buffer.put_back(taken)
    assert dict(buffer.take(10.2 + FED_S, last=True).fed) == {"h1": 157, "h2": 1}


def test_a_host_that_cannot_be_reached_is_named_once() -> None:
    buffer = ReportBuffer()
    buffer.unreachable("h1")
    buffer.unreachable("h1")
    assert buffer.take(0.0).pending.unreachable == ["h1"]
