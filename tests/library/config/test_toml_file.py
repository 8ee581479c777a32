"""Files that people write, with the line of each key and errors that name the place."""

import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from library.config.toml_file import read_json, read_toml, toml_text
from library.config.toml_lines import json_key_lines, key_lines
from library.errors import ConfigError

DATASETS = '''# a comment = 1
top = """
not_a_key = 1
"""  # [not_a_table]
list = [
    "a]", # ]
    'b = 2',
]

[general]
"quoted key" = 1
dotted.name = { inline = 2, more = [1, 2] }

[[datasets]]
resolution = 512
  [[datasets.subsets]]
  image_dir = 'a # not a comment'
  [[datasets.subsets]]
  image_dir = "b \\" = c"
  [datasets.subsets.custom_attributes]
  deep = true
[[datasets]]
resolution = 768
  [[datasets.subsets]]
  image_dir = "c"
'''


def test_every_key_knows_its_line():
    lines = key_lines(DATASETS)
    text = DATASETS.split("\n")
    found = {way: text[line - 1].strip() for way, line in lines.items()}
    assert found[("top",)].startswith("top =")
    assert found[("list",)] == "list = ["
    assert found[("general", "quoted key")] == '"quoted key" = 1'
    assert found[("general", "dotted", "name")].startswith("dotted.name")
    assert found[("datasets", 0, "resolution")] == "resolution = 512"
    assert found[("datasets", 1, "resolution")] == "resolution = 768"
    assert found[("datasets", 0, "subsets", 0, "image_dir")].endswith("comment'")
    assert found[("datasets", 0, "subsets", 1, "image_dir")].startswith('image_dir = "b')
    assert found[("datasets", 0, "subsets", 1, "custom_attributes", "deep")] == "deep = true"
    assert found[("datasets", 1, "subsets", 0)] == "[[datasets.subsets]]"
    assert not {way for way in lines if "not_a_key" in way or "not_a_table" in way or "b" in way}


def test_the_ways_to_the_lines_are_the_ways_through_the_tables():
    tables = tomllib.loads(DATASETS)
    for way in key_lines(DATASETS):
        value: Any = tables
        for part in way:
            value = value[part]


def test_a_key_inside_an_inline_table_has_the_line_of_that_table(tmp_path):
    (tmp_path / "a.toml").write_text(DATASETS, encoding="utf-8")
    file = read_toml(tmp_path / "a.toml")
    assert file.origin("general", "dotted", "name", "inline").phrase == "in a.toml line 12"


def test_json_keys_know_their_lines_too():
    text = '{\n "general": {"a": "x, {\\"b\\": 1}"},\n "datasets": [\n  {"a": [1, 2],\n   "b": 2},\n  {"b": 3}\n ]\n}'
    assert json_key_lines(text) == {
        (): 1,
        ("general",): 2,
        ("general", "a"): 2,
        ("datasets",): 3,
        ("datasets", 0): 4,
        ("datasets", 0, "a"): 4,
        ("datasets", 0, "b"): 5,
        ("datasets", 1): 6,
        ("datasets", 1, "b"): 6,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'a = 1\nb = "C:\\Users\\me"\n',
            "a.toml line 2: a backslash in double quotes has a meaning of its own; write ",
        ),
        (b'a = "C:\\models\\x"\n', "a.toml line 1: a backslash in double quotes"),
        (b"a = 1\na = 2\n", "a.toml line 2 is not valid TOML (Cannot overwrite a value): a = 2"),
        (b"a = 1\n\nb = \n", "a.toml line 3 is not valid TOML (Invalid value): b ="),
        (b'a = "C:\\models\\"\nb = 1\n', "a.toml line 1: a backslash in double quotes"),
        (
            b'a = "C:\\\\x" 1\n',
            "a.toml line 1 is not valid TOML (Expected newline or end of document after a statement)",
        ),
        (b"a = [1,\n", "a.toml ends before a text or a list in it is closed: "),
        ("a = 1\nb = 'é'\n".encode("cp1252"), "a.toml line 2 is not UTF-8; save the file as UTF-8 in your editor."),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_toml(tmp_path / "a.toml")
    assert str(error.value).startswith(message)


def test_a_byte_order_mark_and_windows_line_ends_are_read_over(tmp_path):
    (tmp_path / "a.toml").write_bytes("\ufeffa = 1\r\n\r\nb = 'ü'\r\n".encode())
    file = read_toml(tmp_path / "a.toml")
    assert file.tables == {"a": 1, "b": "ü"}
    assert file.origin("b").line == 3


def test_a_file_that_is_missing_is_named_with_its_nearest_neighbour(tmp_path):
    (tmp_path / "style.toml").touch()
    with pytest.raises(ConfigError) as error:
        read_toml(tmp_path / "stile.toml")
    assert str(error.value) == f"{tmp_path / 'stile.toml'} does not exist; did you mean `{tmp_path / 'style.toml'}`?"


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]))
        | st.integers(-(2**63), 2**63 - 1)
        | st.booleans(),
    )
)
@example({"windows": "C:\\xfiles\\new"})
def test_what_is_written_as_toml_is_read_back(values):
    assert tomllib.loads(toml_text(values)) == values


@pytest.mark.parametrize("content", ['{"a": 1,}', "[1, 2]"])
def test_json_that_is_no_description_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "a = " + "[" * 5000, "a.toml has brackets or tables inside each other without end"),
        ("a.json", "[" * 100_000, "a.json has brackets or tables inside each other without end"),
        ("a.json", '{"a": ' + "9" * 5000 + "}", "a.json has a number that cannot be read"),
        ("a.toml", "a = b" + "c" * 5000, "a.toml line 1 is not valid TOML"),
    ],
    ids=["nested", "nested json", "digits", "long line"],
)
def test_what_cannot_be_read_is_one_short_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as error:
        (read_json if name.endswith("json") else read_toml)(tmp_path / name)
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 400


def test_a_file_of_hundreds_of_megabytes_is_refused_unread(tmp_path):
    with (tmp_path / "a.toml").open("wb") as file:
        file.truncate(400 * 2**20)
    with pytest.raises(ConfigError, match=r"a\.toml is longer than 1 MB, which no such text is"):
        read_toml(tmp_path / "a.toml")
