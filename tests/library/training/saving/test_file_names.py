"""Names of files and states. That a run leaves those of sd-scripts is compared in tests/golden_table/files.py."""

from library.training.saving.file_names import SavingSpec, states_of


def test_states_of_a_run_are_found_by_its_name_and_not_by_a_similar_one(tmp_path):
    mine = ["style-state", "style-000002-state", "style-step00000010-state"]
    for name in [*mine, "style-two-state", "style2-000001-state", "styl-state", "style-000002-state.tmp"]:
        (tmp_path / name).mkdir()
    assert {path.name for path in states_of(SavingSpec(tmp_path, "style"))} == set(mine)


def test_a_name_with_brackets_is_taken_literally(tmp_path):
    (tmp_path / "style [v2]-state").mkdir()
    (tmp_path / "style v-state").mkdir()
    assert [path.name for path in states_of(SavingSpec(tmp_path, "style [v2]"))] == ["style [v2]-state"]
