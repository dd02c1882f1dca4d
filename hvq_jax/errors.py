"""The two exceptions that end a command with a single line for the user, and how they do."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Something the user can mend: the message is one line that says what is wrong, where, and what to do."""


class Preempted(BaseException):
    """The run was asked to stop and has saved what it has; the message is one line.

    Like KeyboardInterrupt no `Exception`: whoever catches what a library raises must not take the stop for damage.
    """


def exit_status(command: Callable[[], None], *, interrupted: str = "interrupted") -> int:
    """Runs `command`; 0, or 1 or 130 after one line on stderr where it failed or was interrupted."""
    try:
        command()
    except Preempted as stop:
        print(stop, file=sys.stderr, flush=True)
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that went away
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0
