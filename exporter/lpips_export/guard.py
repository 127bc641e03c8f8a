"""From what happens to a line on stderr and an exit code: errors, signals, an stdout that cannot be written."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

import typer

from lpips_runtime.errors import LpipsError, OutputError

__all__ = ["abandon_stdout", "guard", "say"]


def guard(
    work: Callable[[], None],
    debug: bool,
    worded: Callable[[LpipsError], str],
    interrupted: Callable[[], str],
) -> None:
    """Run, and turn what goes wrong into a line on stderr and an exit code, which --debug does not change.

    worded: what to say of an error of ours. interrupted: what to say after a signal.
    """
    received: list[int] = []
    try:
        with _stopped_by_signals(received):
            work()
        return
    except BrokenPipeError:  # whoever read stdout has seen enough; typer ends quietly
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  nothing above would word it for the user
        if debug:
            traceback.print_exc()
        if received:
            # Whatever the error: an extension module that is being imported makes an ImportError of the interrupt.
            line, code = interrupted(), 128 + received[0]
        elif isinstance(error, LpipsError):
            line, code = f"error: {worded(error)}", error.exit_code
        else:
            first = (str(error).strip() or "no message").splitlines()[0]
            line = f"error: unexpected {type(error).__name__}: {first}; please report it with the output of --debug"
            code = LpipsError.exit_code
    typer.echo(line, err=True)
    raise typer.Exit(code)


# Ctrl-C, a plain kill, a terminal that is closed.
_STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def _stopped_by_signals(received: list[int]) -> Iterator[None]:
    """Each of _STOPS raises KeyboardInterrupt: unhandled, a kill would leave the staging folder behind."""

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    # One that is ignored, as nohup and shells do for jobs in the background, stays so.
    numbers = [number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def say(text: str, done: str) -> None:
    """Print a result on stdout. done: what holds although it cannot be printed. Raises OutputError."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise OutputError(f"stdout cannot be written: {error.strerror}; {done}") from error


def abandon_stdout() -> None:
    """Forget what could not be written: Python would try again when it ends, fail, and end with exit code 120."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
