"""Make the page of a run again from the files that it wrote: python -m library.report RUN_DIR

Also of a run that crashed, was killed, or ran on another machine. It is written beside the log, as
{output_name}-report.html; a folder with several runs gets a page for each. With --watch FOLDER nothing is written: all
runs and batches below the folder are shown on one page, which reloads itself, on this machine only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from library.command import run_command
from library.console import show


def report(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m library.report", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="output_dir of a run, or its -log.jsonl")
    parser.add_argument("--name", help="output_name, where the folder has several runs and one page is wanted")
    parser.add_argument(
        "--public", action="store_true", help="leave out paths, captions, the command and the training pictures"
    )
    parser.add_argument("--watch", action="store_true", help="serve a page of all runs below the folder, until Ctrl+C")
    parser.add_argument("--port", type=int, default=8765, help="of --watch (8765)")
    arguments = parser.parse_args(argv)
    if arguments.watch:
        watch(arguments.run, arguments.port)
        return

    # Drawing is imported here and nowhere above: --help must not wait for it.
    from library.report.run_files import find_logs
    from library.report.run_page import write_run_page

    for log in find_logs(arguments.run, arguments.name):
        show(f"Wrote {write_run_page(log, public=arguments.public)}")


def watch(folder: Path, port: int) -> None:
    from library.report.all_runs.server import watch_server

    with watch_server(folder, port) as server:
        show(f"All runs below {folder}: http://{server.server_address[0]}:{server.server_address[1]}/ (Ctrl+C ends)")
        server.serve_forever()


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(report, argv)


if __name__ == "__main__":
    sys.exit(main())
