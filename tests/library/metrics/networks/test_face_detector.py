"""Files that are no face detector and no face network: one sentence, and nothing of OpenCV's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from library.errors import UserError
from library.metrics.networks.face_detector import FaceDetector
from library.metrics.networks.identity import face_network


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    content = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(content)]) + content


def onnx(operator: str) -> bytes:
    """A model of one operator on three numbers."""

    def three_numbers(name: str) -> bytes:
        return field(1, name) + field(
            2, field(1, field(1, 1) + field(2, field(1, field(1, 1)) + field(1, field(1, 3))))
        )

    node = field(1, "x") + field(2, "y") + field(4, operator)
    graph = field(1, node) + field(2, "g") + field(11, three_numbers("x")) + field(12, three_numbers("y"))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))


@pytest.mark.parametrize("use", [FaceDetector, face_network])
def test_a_model_that_opencv_cannot_run_is_one_sentence_and_no_raw_warning(
    use: Callable[[Path], object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.onnx").write_bytes(onnx("Nonsense"))
    with pytest.raises(UserError, match="cannot be read by OpenCV") as error:
        use(tmp_path / "odd.onnx")
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
