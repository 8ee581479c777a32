"""The page of all runs below a folder, and the server that shows it: on this machine, read-only."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from library.errors import UserError
from library.report.all_runs.pages import comparison_page, find_runs, overview_page, rank_of
from library.report.all_runs.server import watch_server
from library.report.run_page import write_run_page
from tests.library.report.a_run import make_run
from tests.library.report.hostile import Page

HOSTILE = "<img src=x onerror=alert(1)> {{7*7}} '&a=b#"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A finished run, one that was killed, one that was stopped, and a batch."""
    make_run(tmp_path / "done", name="done")
    killed = make_run(tmp_path / "deep" / "er", name=HOSTILE, ended=False, steps=30, samples_at=(0, 20))
    os.utime(killed, (1, 1))
    make_run(tmp_path / "stopped", name="s", ended=False, more=({"event": "stopped", "step": 60, "reason": "SIGTERM"},))
    jobs = tmp_path / "many" / "_batch" / "jobs"
    jobs.mkdir(parents=True)
    for name, state in (("a", "done"), ("b", "done"), ("c", "failed")):
        (jobs / f"{name}.json").write_text(json.dumps({"state": state}))
    return tmp_path


@pytest.fixture
def ask(root: Path) -> Iterator:
    server = watch_server(root, 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def get(path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    yield get
    server.shutdown()
    server.server_close()


def files_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_one_page_shows_every_run_and_batch_and_nothing_is_written(root: Path, ask):
    before = files_below(root)
    status, html = ask("/")
    assert status == 200
    page = Page(html)
    for text in ("done/done", "Finished", "Stopped", "SIGTERM", "Ended without a word", "3 jobs: 2 done, 1 failed"):
        assert text in page.text, text
    assert f"deep/er/{HOSTILE}" in page.text
    assert html.count("data:image/webp") == 3
    for link in [value for name, value in page.attributes if name == "href"]:
        assert ask(link)[0] == 200, link
    assert files_below(root) == before


def test_a_hostile_name_is_a_text_and_a_link_to_its_own_page(root: Path, ask):
    html = ask("/")[1]
    assert "<img src=x" not in html
    (link,) = [value for name, value in Page(html).attributes if name == "href" and "/page/deep" in value]
    status, page = ask(link)
    assert status == 200
    assert HOSTILE in Page(page).texts
    Page(page).refuse_anything_active()


def test_the_page_of_a_finished_run_is_the_one_that_lies_there(root: Path, ask):
    page = write_run_page(root / "done" / "done-log.jsonl")
    page.write_text("as it lies there", encoding="utf-8")
    assert ask("/page/done/done-report.html") == (200, "as it lies there")


@pytest.mark.parametrize(
    "path",
    ["/page/../secret.html", "/page/%2e%2e/secret.html", "/page//etc/passwd", "/page/done/done.safetensors", "/x"],
)
def test_nothing_else_is_served(root: Path, ask, path: str):
    (root.parent / "secret.html").write_text("secret")
    assert ask(path)[0] == 404


def test_other_names_of_this_machine_and_other_methods_are_refused(ask):
    assert ask("/", Host="evil.example:80")[0] == 403
    assert ask("/", method="POST")[0] == 501
    assert ask("/", Host="localhost:1")[0] == 200


def test_two_runs_side_by_side_show_what_differs_both_losses_and_the_samples_by_prompt(root: Path):
    html = comparison_page(root, "done/done-log.jsonl", "stopped/s-log.jsonl")
    assert html is not None
    page = Page(html)
    assert "a red boat" in page.text
    assert html.count("<polyline") == 2
    assert html.count("<figure>") == 4
    assert comparison_page(root, "done/done-log.jsonl", "../x-log.jsonl") is None
    alone = comparison_page(root, "done/done-log.jsonl", "")
    assert alone is not None
    assert "stopped/s" in Page(alone).text


def test_ranks_come_from_the_header_of_a_file(tmp_path: Path):
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "a.safetensors"
    save_file({f"{n}.lora_down.weight": torch.zeros(rank, 4) for n, rank in (("a", 2), ("b", 4), ("c", 8))}, file)
    assert rank_of(file) == "4 (2 to 8)"
    file.write_bytes(b"no header")
    assert rank_of(file) == ""


def test_a_folder_without_runs_is_an_empty_page_and_no_folder_an_error(tmp_path: Path):
    assert "No run has written a log here yet" in overview_page(tmp_path)
    assert find_runs(tmp_path) == []
    with pytest.raises(UserError, match="is not a folder"):
        watch_server(tmp_path / "none", 0)
