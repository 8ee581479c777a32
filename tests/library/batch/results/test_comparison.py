"""Differences in pairs, ranks, and the page that shows them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from library.batch.jobs.ledger import BY_USER, DONE, FAILED, Attempt, Ledger, Record
from library.batch.results.comparison import Measure, adjusted, differences, measures, ranks, reference
from library.batch.results.contact_sheet import contact_sheet
from library.batch.results.metrics_files import not_compared, with_metrics
from library.batch.results.page import write_batch_page
from library.batch.results.table import rows, table_text

LOSS = Measure("validation_loss", higher_is_better=False)


def job(dataset: str, method: str, loss: float, seed: int = 1) -> Record:
    parts = {"options": {"method trains": method != "base"}}
    found = {"validation_loss": loss}
    return Record(f"{dataset}-{method}-s{seed}", dataset, method, seed, state=DONE, parts=parts, results=found)


RECORDS = [
    *(job(dataset, "base", loss) for dataset, loss in (("a", 0.5), ("b", 0.6), ("c", 0.7))),
    *(job(dataset, "lora", loss, seed) for seed in (1, 2) for dataset, loss in (("a", 0.4), ("b", 0.5), ("c", 0.6))),
    *(job(dataset, "lokr", loss) for dataset, loss in (("a", 0.2), ("b", 0.7), ("c", 0.7))),
]


def test_a_difference_counts_each_dataset_once_whatever_its_seeds():
    found = {d.method: d for d in differences(RECORDS, "validation_loss", "base")}
    assert found["lora"].mean.value == pytest.approx(-0.1)
    assert (found["lora"].mean.n, found["lora"].unit) == (3, "datasets")
    assert found["lora"].verdict(LOSS) == "better"
    assert found["lokr"].mean.value == pytest.approx(-0.2 / 3)
    assert found["lokr"].verdict(LOSS) == "no difference shown"


def test_a_seed_that_failed_is_no_pair_but_the_untrained_model_is_one_for_all_seeds():
    trained = [job("a", "x", 0.5), *(job("a", "y", 0.4, seed) for seed in (1, 2, 3))]
    (found,) = differences(trained, "validation_loss", "x")
    assert (found.mean.n, found.verdict(LOSS)) == (1, "one pair: no interval")
    (found,) = differences([job("a", "base", 0.5), *trained[1:]], "validation_loss", "base")
    assert found.mean.n == 3


def test_differences_that_are_shown_together_are_judged_together():
    close = [0.40, 0.43, 0.45, 0.465]
    records = [job(d, "base", 0.5) for d in "abcd"]
    for n in range(5):
        records += [job(d, f"m{n}", loss) for d, loss in zip("abcd", close, strict=True)]
    alone = differences(records[:8], "validation_loss", "base")
    assert adjusted([alone])[0][0].verdict(LOSS) == "better"
    together = adjusted([differences(records, "validation_loss", "base")])[0]
    assert {d.verdict(LOSS) for d in together} == {"may be chance among so many"}
    assert alone[0].mean.p is not None
    assert together[0].p == pytest.approx(5 * alone[0].mean.p)


def test_with_one_dataset_its_seeds_count_and_one_pair_gives_no_interval():
    of_a = [record for record in RECORDS if record.dataset == "a"]
    found = {d.method: d for d in differences(of_a, "validation_loss", "base")}
    assert (found["lora"].mean.n, found["lora"].unit) == (2, "seeds")
    assert found["lokr"].verdict(LOSS) == "one pair: no interval"


def test_ranks_are_means_over_datasets_and_equal_values_share_theirs():
    assert ranks(RECORDS, LOSS) == pytest.approx({"base": 2.5, "lora": 4 / 3, "lokr": 13 / 6})
    exact = ranks([job("a", "x", 1.0), job("a", "y", 1.0), job("a", "z", 0.5)], LOSS)
    assert exact == {"x": 2.5, "y": 2.5, "z": 1.0}
    higher = Measure("clip_t", higher_is_better=True)
    assert ranks([], higher) == {}


def test_the_model_as_it_is_is_what_others_are_compared_with():
    assert reference(RECORDS[3:] + RECORDS[:3]) == "base"
    assert reference([job("a", "lokr", 1), job("a", "lora", 1)]) == "lokr"


def test_metrics_of_evaluate_join_the_record(tmp_path):
    metrics = {"clip_t": {"value": 0.3, "better": "higher"}, "fid": {"not_measured": "no weights"}}
    (tmp_path / "eval.json").write_text(json.dumps({"metrics": metrics}), encoding="utf-8")
    (tmp_path / "eval2.json").write_text("[]", encoding="utf-8")
    record = with_metrics(RECORDS[0], tmp_path)
    assert record.results["metrics"] == {"clip_t": {"value": 0.3, "better": "higher", "network": ""}}
    assert rows([record])[0]["metric:clip_t"] == 0.3
    assert "clip_t" in table_text([record])
    assert [m.name for m in measures([record, *RECORDS])] == ["validation_loss"]


def evaluated(record: Record, folder: Path, value: object, clip: str = "a" * 64, references: str = "r") -> Record:
    """The record with an eval.json of clip_i, written as JSON is that knows of no infinities."""
    facts = {"value": value, "better": "higher", "weights": {"clip": {"sha256": clip}}, "preprocessing": "224"}
    folder.mkdir(exist_ok=True)
    text = json.dumps({"metrics": {"clip_i": facts | {"references": references}}})
    (folder / "eval.json").write_text(text, encoding="utf-8")
    return with_metrics(record, folder)


HIGHER = Measure("clip_i", higher_is_better=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.3", None, True, [0.3]])
def test_what_is_no_finite_number_is_neither_ranked_nor_compared_and_the_page_says_so(tmp_path, value):
    of = {"x": 0.1, "y": value, "z": 0.3}
    records = [evaluated(job("a", method, 0.5), tmp_path / method, found) for method, found in of.items()]
    assert ranks(records, HIGHER) == {"x": 2.0, "z": 1.0}
    assert [d.method for d in differences(records, "clip_i", "x")] == ["z"]
    line = "clip_i of a-y-s1 is not a finite number; it is not compared."
    assert not_compared(records) == [line]
    assert line in write_batch_page(Ledger(tmp_path), records, "styles").read_text(encoding="utf-8")
    assert "nan" not in table_text(records)


@pytest.mark.parametrize(
    "odd",
    [
        {"better": "sideways"},
        {"better": None},
        {"references": ["a"]},
        {"weights": {"clip": 3}},
        {"weights": {"clip": {}}},
        {"preprocessing": 224},
    ],
)
def test_a_metric_that_evaluate_does_not_write_so_is_left_out_and_the_others_stay(tmp_path, odd):
    good = {"value": 0.3, "better": "higher"}
    text = json.dumps({"metrics": {"odd": {**good, **odd}, "none": 3, "clip_t": good}})
    (tmp_path / "eval.json").write_text(text, encoding="utf-8")
    assert list(with_metrics(RECORDS[0], tmp_path).results["metrics"]) == ["clip_t"]


def test_a_number_beyond_all_floats_is_no_figure(tmp_path):
    (tmp_path / "eval.json").write_text('{"metrics": {"m": {"value": 1%s, "better": "lower"}}}' % ("0" * 400))
    assert with_metrics(RECORDS[0], tmp_path).results["metrics"]["m"]["value"] is None


def test_a_job_that_is_not_done_is_not_compared():
    half_done = replace(job("a", "y", 0.1), state=FAILED)
    assert ranks([job("a", "x", 0.5), half_done, job("a", "z", 0.4)], LOSS) == {"x": 2.0, "z": 1.0}


def test_a_training_that_ended_in_nan_has_no_rank(tmp_path):
    records = [job("a", "x", 0.5), job("a", "y", float("nan")), job("a", "z", 0.4)]
    assert ranks(records, LOSS) == {"x": 2.0, "z": 1.0}
    assert not_compared(records) == ["validation_loss of a-y-s1 is not a finite number; it is not compared."]
    write_batch_page(Ledger(tmp_path), records, "styles")


def test_figures_of_another_network_are_left_out_by_name(tmp_path):
    clips = {"x": "a" * 64, "y": "b" * 64, "z": "a" * 64}
    records = [evaluated(job("a", m, 0.5), tmp_path / m, 0.1, clip) for m, clip in clips.items()]
    assert [d.method for d in differences(records, "clip_i", "x")] == ["z"]
    assert set(ranks(records, HIGHER)) == {"x", "z"}
    (line,) = not_compared(records)
    assert line.startswith("clip_i of a-y-s1 was measured by clip bbbbbbbb, 224, that of most by clip aaaaaaaa, 224;")
    assert line in write_batch_page(Ledger(tmp_path), records, "styles").read_text(encoding="utf-8")


def test_references_may_differ_between_datasets_and_not_within_one(tmp_path):
    def measured(dataset: str, method: str, references: str) -> Record:
        return evaluated(job(dataset, method, 0.5), tmp_path / f"{dataset}{method}", 0.1, references=references)

    records = [measured(dataset, method, dataset) for dataset in ("a", "b") for method in ("x", "y")]
    assert not_compared(records) == []
    (found,) = differences(records, "clip_i", "x")
    assert found.mean.n == 2
    (found,) = differences([*records[:3], measured("b", "y", "others")], "clip_i", "x")
    assert found.mean.n == 1
    (line,) = not_compared([*records[:3], measured("b", "y", "others")])
    assert "clip_i of b-y-s1 was measured against other references than that of most on b" in line


def failed(name: str, message: str) -> Record:
    ended = Attempt("here", 1, "cpu", 0.0, ended=2.0, exit=BY_USER, error_class=BY_USER, message=message)
    return Record(name, "a", "lora", 9, state=FAILED, attempts=[ended])


def test_failures_come_last_in_the_table_and_first_on_the_page(tmp_path):
    records = [failed("a-lora-s9", "image 'x.png' is damaged"), *RECORDS]
    assert table_text(records).splitlines()[-1].endswith("image 'x.png' is damaged")
    html = write_batch_page(Ledger(tmp_path), records, "styles").read_text(encoding="utf-8")
    assert html.index("image &#39;x.png&#39; is damaged") < html.index('<h2 id="jobs"')
    assert "10 jobs" not in html
    assert "13 jobs: 12 done, 1 failed" in html


def test_a_job_with_a_page_of_its_own_is_a_link_and_columns_without_a_value_are_left_out(tmp_path):
    (tmp_path / "a-base-s1").mkdir()
    (tmp_path / "a-base-s1" / "its report.html").touch()
    html = write_batch_page(Ledger(tmp_path), RECORDS, "styles").read_text(encoding="utf-8")
    assert '<th scope="row"><a href="a-base-s1/its%20report.html">a-base-s1</a></th>' in html
    assert '<th scope="row">b-base-s1</th>' in html
    head = html[html.index('<h2 id="jobs"') :].partition("</thead>")[0]
    assert re.findall(r">([^<>]+)</th>", head) == ["job", "state", "attempts", "validation"]


def test_the_page_runs_nothing_whatever_texts_it_is_given(tmp_path):
    hostile = "<script>alert(1)</script>\"'{{7*7}}\u202e\x00"
    records = [failed(hostile, hostile), *RECORDS]
    html = write_batch_page(Ledger(tmp_path), records, hostile).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "\u202e" not in html
    assert "{{7*7}}" in html
    assert "default-src &#39;none&#39;" in html


def drawn(folder: Path, name: str, prompts: dict[str, str]) -> None:
    sample = folder / name / "sample"
    sample.mkdir(parents=True)
    for seed, prompt in prompts.items():
        texts = PngInfo()
        texts.add_itxt("prompt", prompt)
        texts.add_itxt("seed", seed)
        Image.new("RGB", (8, 8)).save(sample / f"{seed}.png", pnginfo=texts)
    lines = [{"event": "samples", "step": step, "files": [f"{seed}.png" for seed in prompts]} for step in (0, 5)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / name / f"{name}-log.jsonl").write_text(text, encoding="utf-8")


def test_pictures_share_a_row_only_with_the_same_prompt_and_seed(tmp_path):
    drawn(tmp_path, "a-base-s1", {"1": "a cat", "2": "a dog"})
    drawn(tmp_path, "a-lora-s1", {"1": "a cat", "3": "a dog"})
    sheet = contact_sheet(RECORDS[:4], ["base", "lora"], tmp_path, prompts=3)
    assert [(row.prompt, row.seed, [bool(p) for p in row.pictures]) for row in sheet] == [
        ("a cat", "1", [True, True]),
        ("a dog", "2", [True, False]),
        ("a dog", "3", [False, True]),
    ]
    html = write_batch_page(Ledger(tmp_path), RECORDS, "styles").read_text(encoding="utf-8")
    assert all(source.startswith("data:image/webp") for source in re.findall(r'src="([^"]*)"', html))
    assert 'alt="lora on a: a cat, seed 1"' in html
