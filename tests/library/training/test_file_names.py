"""Names and pruning against the files that runs of an unmodified sd-scripts left behind."""

import json
from pathlib import Path

import pytest

from library.training.clock import Clock, total_steps
from library.training.file_names import SavingSpec, due_stems, outdated, states_of

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "file_names.json").read_text())["runs"]


def _spec(run: dict) -> SavingSpec:
    values: dict = {}
    words = run["options"]
    for i, word in enumerate(words):
        if word.startswith("--"):
            following = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("--") else None
            values[word[2:]] = True if following is None else int(following) if following.isdigit() else following
    return SavingSpec(output_dir=Path("out"), output_name=run["output_name"], **values)


def _left_behind(spec: SavingSpec, clock: Clock) -> set[str]:
    files: set[str] = set()
    while not clock.finished:
        clock.tick()
        for stem in due_stems(spec, clock):
            files.add(spec.file(stem).name)
            if spec.save_state:
                files.add(spec.state(stem).name + "/")
        old_files, old_states = outdated(spec, clock)
        files -= {spec.file(stem).name for stem in old_files} | {path.name + "/" for path in old_states}
    files.add(spec.file(spec.last_stem).name)
    if spec.save_state or spec.save_state_on_train_end:
        files.add(spec.state(spec.last_stem).name + "/")
    return files


@pytest.mark.parametrize("run", GOLDEN, ids=lambda run: run["label"])
def test_a_run_leaves_the_files_that_sd_scripts_leaves(run):
    clock = Clock(
        run["steps_per_epoch"], total_steps(run["steps_per_epoch"], run["max_train_steps"], run["max_train_epochs"])
    )
    assert _left_behind(_spec(run), clock) == set(run["output_dir_top_level"])


def test_states_of_a_run_are_found_by_its_name_and_not_by_a_similar_one(tmp_path):
    mine = ["style-state", "style-000002-state", "style-step00000010-state"]
    for name in [*mine, "style-two-state", "style2-000001-state", "styl-state", "style-000002-state.tmp"]:
        (tmp_path / name).mkdir()
    assert {path.name for path in states_of(SavingSpec(tmp_path, "style"))} == set(mine)


def test_a_name_with_brackets_is_taken_literally(tmp_path):
    (tmp_path / "style [v2]-state").mkdir()
    (tmp_path / "style v-state").mkdir()
    assert [path.name for path in states_of(SavingSpec(tmp_path, "style [v2]"))] == ["style [v2]-state"]
