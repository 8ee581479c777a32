"""What a jobs file may say, and what it makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.batch.jobs.config import OPTIONS
from library.batch.jobs.expansion import expand
from library.batch.jobs.job import Job
from library.batch.jobs.jobs_file import read_jobs_file
from library.config.options.batch import duration
from library.errors import Problem


def read(folder: Path, text: str) -> tuple[list[Job], list[Problem]]:
    (folder / "jobs.toml").write_text(text.replace("STYLES", str(folder / "styles")), encoding="utf-8")
    file, problems = read_jobs_file(folder / "jobs.toml", OPTIONS)
    return expand(file, OPTIONS, problems), problems


HEAD = '[batch]\noutput_dir = "out"\ndatasets = ["STYLES/*"]\n'
LORA = '[methods.lora]\nnetwork_module = "networks.lora"\n'


def test_every_dataset_meets_every_method_and_seed_datasets_changing_last(tmp_path, styles):
    jobs, problems = read(tmp_path, HEAD + "seeds = [1, 2]\n" + LORA + "[methods.wide]\nnetwork_dim = 64\n")
    assert not problems
    names = ["one-lora-s1", "one-lora-s2", "one-wide-s1", "one-wide-s2", "three-lora-s1"]
    assert [job.name for job in jobs][:5] == names
    assert len(jobs) == 3 * 2 * 2


def test_another_order_lets_the_seed_change_last(tmp_path, styles):
    jobs, _ = read(tmp_path, HEAD + 'seeds = [1, 2]\norder = ["seed", "method", "dataset"]\n' + LORA)
    assert [job.seed for job in jobs] == [1, 1, 1, 2, 2, 2]


def test_the_last_override_that_matches_wins(tmp_path, styles):
    more = '[[override]]\nmatch = { dataset = "t*" }\nset = { network_dim = 8 }\n'
    more += '[[override]]\nmatch = { dataset = "two", method = "lora" }\nset = { network_dim = 9 }\n'
    jobs, problems = read(tmp_path, HEAD + LORA + more)
    assert not problems
    dims = {job.dataset.name: [w.raw for w in job.written if w.option.name == "network_dim"] for job in jobs}
    assert dims == {"one": [], "three": [8], "two": [8, 9]}


def test_excluded_jobs_are_gone_and_a_job_of_its_own_is_there(tmp_path, styles):
    more = '[[exclude]]\nmatch = { dataset = ["one", "two"] }\n'
    more += '[[job]]\nname = "long"\ndataset = "one"\nmethod = "lora"\nseed = 9\nset = { max_train_steps = 99 }\n'
    jobs, problems = read(tmp_path, HEAD + LORA + more)
    assert not problems
    assert [(job.name, job.dataset.name, job.seed) for job in jobs] == [
        ("three-lora-s1", "three", 1),
        ("long", "one", 9),
    ]


def test_a_model_that_is_not_trained_comes_once_for_each_dataset(tmp_path, styles):
    jobs, _ = read(tmp_path, HEAD + "seeds = [4, 5]\n" + LORA + "[methods.base]\ntrain = false\n")
    assert [(job.dataset.name, job.seed) for job in jobs if not job.trains] == [("one", 4), ("three", 4), ("two", 4)]


def test_all_mistakes_are_reported_at_once_with_their_lines_and_what_was_meant(tmp_path, styles):
    text = (
        '[batch]\noutput_dir = "out"\ndatasets = ["STYLES/*", "STYLES/*.tml"]\nsedes = [1]\n'
        'output_name = "{datset}"\n[methods.lora]\nnetwork_dmi = 4\nnetwork_dim = "many"\noutput_dir = "x"\n'
        '[[override]]\nmatch = { dataset = "onne" }\nset = { network_dim = 8 }\n[[exclud]]\n'
    )
    _, problems = read(tmp_path, text)
    told = "\n".join(map(str, problems))
    for part in (
        "`exclud` in jobs.toml line 13",
        "`sedes` in jobs.toml line 4 is no key of [batch]; did you mean `seeds`?",
        "has {datset}; did you mean `dataset`?",
        "`network_dmi` in jobs.toml line 7 is not an option; did you mean `network_dim`?",
        "`network_dim` in jobs.toml line 8 must be a whole number",
        "`output_dir` in jobs.toml line 9 cannot be set here",
        "matches no job; did you mean `one`?",
        ".tml': nothing there is called so",
    ):
        assert part in told


def test_names_that_differ_only_in_capitals_are_refused(tmp_path, styles):
    more = LORA + LORA.replace("lora]", "LoRA]")
    _, problems = read(tmp_path, HEAD + more)
    assert "would write over each other" in str(problems[0])


def test_a_folder_of_pictures_itself_is_a_dataset_with_the_repeats_of_its_name(tmp_path, styles):
    (styles / "one" / "1_sks").rename(styles / "5_sks")
    (styles / "one").rmdir()
    jobs, problems = read(tmp_path, HEAD + LORA)
    assert not problems
    source = jobs[0].dataset
    assert source.name == "sks"
    assert source.tables is not None
    subset = {"image_dir": str(styles / "5_sks"), "num_repeats": 5, "class_tokens": "sks"}
    assert source.tables.tables == {"datasets": [{"subsets": [subset]}]}


def test_a_folder_without_pictures_among_others_is_refused_by_name_and_files_beside_them_are_not(tmp_path, styles):
    (styles / "empty").mkdir()
    (styles / "photos").mkdir()
    (styles / "photos" / "1.heic").touch()
    (styles / ".cache").mkdir()
    (styles / "one.txt").write_text("a prompt", encoding="utf-8")
    jobs, problems = read(tmp_path, HEAD + LORA)
    assert [job.dataset.name for job in jobs] == ["one", "three", "two"]
    first, second = (str(problem) for problem in problems)
    assert f"{styles}/empty has neither pictures nor folders of pictures such as 10_person" in first
    assert first.count("empty") == 2  # once by its name, once because it is
    assert f"{styles}/photos has neither pictures" in second
    assert "found .heic (1)" in second
    assert second.endswith("put some there, move it away, or name the folders that are meant.")


def test_a_pattern_that_finds_only_other_files_says_so(tmp_path, styles):
    (tmp_path / "notes.md").touch()
    _, problems = read(tmp_path, HEAD.replace("STYLES/*", "STYLES/../*.md") + LORA)
    assert "notes.md is neither a folder of pictures nor a dataset description (.toml, .json)" in str(problems[0])


@pytest.mark.parametrize(("text", "seconds"), [("8h", 28800), ("90min", 5400), ("1h30m", 5400), (20, 20)])
def test_a_duration_is_read(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "8 hours", "-3h", ""])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="must be a time"):
        duration(text)
