"""What a run's log says of its data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image


def test_a_run_logs_its_buckets_and_what_is_wrong_with_its_pictures(train, pictures, tmp_path, capsys):
    folder = tmp_path / "pictures" / "1_sks"
    shutil.copytree(pictures / "1_sks", folder)
    for name, like in (("double", "0"), ("really", "1")):  # of these nine the seed 0 holds out really.png
        for extension in (".png", ".txt"):
            shutil.copy(folder / (like + extension), folder / (name + extension))
    (folder / "3.txt").rename(folder / "3.caption")
    (folder / "4.txt").write_text("one, two, three, " * 30, encoding="utf-8")
    Image.open(folder / "5.png").save(folder / "5.png", "JPEG")
    assert train(train_data_dir=tmp_path / "pictures", validation_split=0.15, max_train_steps=1) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "t-log.jsonl").read_text(encoding="utf-8").splitlines()]
    (data,) = (line for line in lines if line.get("event") == "data")
    assert (data["images"], data["held_out"], data["visits"], data["more_problems"]) == (8, 1, 8, 0)
    assert data["buckets"] == [{"size": [64, 64], "images": 8, "visits": 8, "batch_size": 2}]
    assert [(problem["kind"], Path(problem["file"]).name) for problem in data["problems"]] == [
        ("mislabelled", "5.png"),
        ("duplicate", "double.png"),
        ("leak", "really.png"),
        ("caption extension", "3.png"),
        ("long caption", "4.png"),
    ]
    assert "one held-out picture is trained on, too, such as" in capsys.readouterr().err
