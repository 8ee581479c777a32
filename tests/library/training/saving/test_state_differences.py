"""What a refused state says: which option, key, picture or caption is another one, and what can be done."""

import pytest

from library.errors import UserError
from library.training.saving.state_differences import HELD_OUT, MODEL, PICTURES, SUBSETS, Expected, differences

PICTURE = {"content": "aa", "mask": None, "bucket": [64, 64], "caption": "a cat"}


def lines(theirs, ours, their_details=None, our_details=None):
    return [line for found in differences(theirs, ours, their_details, our_details) for line in found.lines]


def test_each_picture_that_came_went_or_changed_is_named():
    old = {"0/img/a.png": PICTURE, "0/img/b.png": PICTURE, "0/img/c.png": PICTURE}
    new = {"0/img/a.png": PICTURE | {"bucket": [64, 128]}, "0/img/b.png": PICTURE | {"content": "bb"}}
    new |= {"0/img/d.png": PICTURE}
    assert lines({PICTURES: "1"}, {PICTURES: "2"}, {PICTURES: old}, {PICTURES: new}) == [
        "0/img/a.png: its bucket is [64, 128] now, [64, 64] in the state",
        "0/img/b.png: the picture itself is another one",
        "0/img/c.png: in the state, not there now",
        "0/img/d.png: not in the state, there now",
    ]


def test_captions_count_before_the_pictures_are_read():
    new = {"0/img/a.png": PICTURE | {"content": None, "caption": "a dog"}}
    details = {PICTURES: {"0/img/a.png": PICTURE}, HELD_OUT: {}}
    assert lines({}, {}, details, {PICTURES: new, HELD_OUT: {}}) == [
        "0/img/a.png: its caption is 'a dog' now, 'a cat' in the state"
    ]


def test_a_key_of_a_dataset_is_named_with_its_folder():
    old, new = [{"folder": "1_sks", "flip_aug": "False"}], [{"folder": "elsewhere", "flip_aug": "True"}]
    assert lines({SUBSETS: "1"}, {SUBSETS: "2"}, {SUBSETS: old}, {SUBSETS: new}) == [
        "`flip_aug` of elsewhere: False in the state, True now"
    ]


def test_a_state_of_an_earlier_version_is_compared_by_what_it_tells():
    theirs = {"pretrained_model_name_or_path": "a.safetensors", "network_weights": "b.safetensors", SUBSETS: "1"}
    theirs |= {"pictures": [["a.png", "aa"], ["b.png", "bb"]]}
    ours = {"network_weights": "sha256:0123", SUBSETS: "2", "pictures": {"a.png": "ab", "b.png": "bb"}}
    assert lines(theirs, ours, {}, {SUBSETS: []}) == [
        f"{SUBSETS}: 1 in the state, 2 now",
        "a.png: the picture itself is another one",
    ]


def test_an_option_that_the_states_version_did_not_have_counts_only_where_it_is_on():
    assert lines({"seed": 1}, {"seed": 1, "flow_model": False, "ema_decay": None}) == []
    assert lines({"seed": 1}, {"seed": 1, "flow_model": True}) == ["flow_model: None in the state, True now"]


def test_a_model_is_known_by_its_weights_and_named_by_its_path():
    theirs, ours = {MODEL: "aa", "base model": "/a"}, {MODEL: "aa", "base model": "/b"}
    assert lines(theirs, ours) == []
    assert lines(theirs, ours | {MODEL: "bb"}) == [f"{MODEL}: aa (/a) in the state, bb (/b) now"]


def test_a_long_list_is_cut_and_what_shapes_tensors_is_never_taken(tmp_path):
    old = {f"{i}.png": PICTURE for i in range(20)}
    expected = Expected({PICTURES: "2", "network_dim": 2}, {PICTURES: {}}, frozenset({"network_dim"}), True)
    taken = expected.changes(tmp_path, {PICTURES: "1", "network_dim": 2}, {PICTURES: old})
    assert [(change.name, len(change.lines)) for change in taken] == [(PICTURES, 20)]
    with pytest.raises(UserError) as refusal:
        expected.changes(tmp_path, {PICTURES: "1", "network_dim": 4}, {PICTURES: old})
    assert "  - and 12 more like these\n  - network_dim: 4 in the state, 2 now\n" in str(refusal.value)
    assert "--resume_with_changes" not in str(refusal.value)
