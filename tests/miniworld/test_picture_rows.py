"""Labels stand beside their rows and leave the pictures as they are."""

import numpy as np

from miniworld.picture_rows import LABEL_WIDTH, labelled_rows


def test_a_label_stands_beside_its_row_and_covers_no_picture():
    without, labelled = np.full((40, 60, 3), 90, np.uint8), np.full((64, 60, 3), 200, np.uint8)
    rows = {"": without, "B2: text pivot out of context": labelled}
    sheet = np.asarray(labelled_rows(rows))
    assert sheet.shape == (104, LABEL_WIDTH + 60, 3)
    assert (sheet[:, LABEL_WIDTH:] == np.concatenate(list(rows.values()))).all()
    labels = sheet[:, :LABEL_WIDTH]
    assert (labels[:40] == 255).all()
    assert labels[40:].min() == 0
    assert (labels[:, -6:] == 255).all()  # the longest line ends before the pictures
