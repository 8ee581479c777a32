"""Of many only so many are taken, evenly."""

from library.evenly import every_nth, from_end_to_end


def test_each_nth_is_taken_from_the_first_on():
    assert every_nth(7, 3) == [0, 3, 6]
    assert every_nth(3, 7) == [0, 1, 2]
    assert every_nth(0, 3) == []
    assert len(every_nth(1001, 200)) <= 200


def test_the_first_and_the_last_are_taken():
    assert from_end_to_end(101, 3) == [0, 50, 100]
    assert from_end_to_end(2, 3) == [0, 1]
    assert from_end_to_end(0, 3) == []
