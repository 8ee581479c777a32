"""What is said, how much of it, and where."""

import logging

import pytest

from library.command import run_command
from library.console import Console, ConsoleSpec, log_to, without_notes
from library.errors import UserError


def test_notes_and_results_are_reported_and_steps_are_not(capsys):
    console = Console()
    console.note("worth knowing")
    console.write("a step", logging.DEBUG)
    console.result("saved")
    said = capsys.readouterr()
    assert said.err == "note: worth knowing\n"
    assert said.out == "saved\n"


def test_a_higher_level_leaves_out_what_is_below_it(capsys):
    console = Console(ConsoleSpec("WARNING"))
    console.note("worth knowing")
    console.result("saved")
    console.write("a bad step", logging.WARNING)
    said = capsys.readouterr()
    assert said.err == "a bad step\n"
    assert said.out == ""


def test_into_a_file_means_not_on_the_console(tmp_path, capsys):
    file = tmp_path / "logs" / "run.log"
    for line in ("first", "second"):
        Console(ConsoleSpec("DEBUG", file)).write(line, logging.DEBUG)
    assert capsys.readouterr() == ("", "")
    assert [line.split(" ", 2)[2] for line in file.read_text(encoding="utf-8").splitlines()] == [
        "DEBUG first",
        "DEBUG second",
    ]


def test_only_the_first_process_says_its_notes(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    Console().note("worth knowing")
    assert capsys.readouterr().err == ""


def test_a_file_that_cannot_be_written_is_recognised_by_its_option(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="console_log_file"):
        Console(ConsoleSpec(console_log_file=tmp_path / "file" / "run.log"))


def test_a_run_is_reported_at_the_level_that_was_asked_for(train, tmp_path, capsys):
    log = tmp_path / "run.log"
    assert train(max_train_steps=1, console_log_level="DEBUG", console_log_file=log) == 0
    said = log.read_text(encoding="utf-8")
    assert "DEBUG {'step': 1" in said
    assert "INFO Trained 1 steps" in said
    assert "Trained" not in capsys.readouterr().out


def test_a_name_with_terminal_escapes_reaches_console_and_log_as_text(tmp_path, capsys):
    name = "a\x1b]0;gone\x07\x1b[2J\udcff.png"
    shown = r"image 'a\x1b]0;gone\x07\x1b[2J\udcff.png'"
    Console().note(f"image '{name}'")
    Console(ConsoleSpec(console_log_file=tmp_path / "log")).result(f"image '{name}'")
    assert capsys.readouterr().err == f"note: {shown}\n"
    assert (tmp_path / "log").read_text(encoding="utf-8").endswith(f"INFO {shown}\n")

    def refuse(argv):
        raise UserError(f"image '{name}': is damaged")

    assert run_command(refuse, []) == 1
    assert capsys.readouterr().err == f"\nerror: {shown}: is damaged\n"


def test_what_any_part_reports_reaches_the_console_of_the_command_and_only_that(capsys, tmp_path):
    log_to(Console())
    log_to(Console(ConsoleSpec(console_log_file=tmp_path / "log")))
    logging.getLogger("library.training.clock").info("a place")
    logging.getLogger("networks.other").info("not shown")
    logging.getLogger("networks.other").warning("no effect")
    assert capsys.readouterr() == ("", "")
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO note: a place", "WARNING note: no effect"]


def test_a_part_may_have_a_console_of_its_own(capsys):
    log_to(Console())
    log_to(Console(prefix="batch"), "library.batch")
    logging.getLogger("library.batch.driver").info("begun")
    logging.getLogger("library.training.clock").info("a place")
    assert capsys.readouterr().err == "batch: begun\nnote: a place\n"


def test_notes_can_be_left_out_where_a_thing_is_only_counted(capsys):
    log_to(Console())
    with without_notes():
        logging.getLogger("library.training.clock").info("a place")
    logging.getLogger("library.training.clock").info("another")
    assert capsys.readouterr().err == "note: another\n"
