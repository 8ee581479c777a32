"""How every command starts and ends: messages instead of tracebacks for what a person can mend, and exit codes."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from library.console import Console, log_to, show
from library.errors import Interrupted, UserError


def run_command(command: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Run `command` on the arguments (the process' own by default); returns the exit code.

    A `UserError` is printed without a traceback. A run that was asked to stop ends with 130 (SIGINT) or 143 (SIGTERM).
    """
    quiet_optional_libraries()
    log_to(Console())
    for stream in (sys.stdout, sys.stderr):
        # A console of another encoding than UTF-8 must not end a run because of a file name.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        show(f"\nerror: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as interruption:
        return interruption.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing more to say, and nothing more to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def quiet_optional_libraries() -> None:
    """Keep libraries that only a GPU needs from announcing at import that there is none: we say so where it matters."""
    for name in ("xformers", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
