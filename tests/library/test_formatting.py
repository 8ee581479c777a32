"""Numbers as people read them."""

from library.formatting import duration, file_size, number


def test_figures_are_written_for_people():
    assert [file_size(n) for n in (0, 999, 1000, 202_200, 6_938_040_682)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "202 kB",
        "6.9 GB",
    ]
    assert [number(v) for v in (None, 12345, 0.123456, 2e-5, True)] == ["–", "12,345", "0.1235", "2e-05", "yes"]
    assert [duration(s) for s in (4.21, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 5 min"]
