"""Exceptions that end a command with a one-line message, and the exit status of a command."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """A problem the user can fix: one line that says what is wrong, where, and what to do."""


class ArgumentError(UserError):
    """A bad argument: one line that starts with the argument's name.

    The commands put the flag in front of it: "mode=hybrid: …" becomes "--config.latent.mode=hybrid: …".
    """

    def __init__(self, argument: str, problem: str) -> None:
        """Name the `argument`, "name=value" or "name", and say what is wrong with it."""
        super().__init__(f"{argument}: {problem}")
        self.argument, self.problem = argument, problem

    @property
    def name(self) -> str:
        """The argument's name without its value."""
        return self.argument.partition("=")[0]

    def within(self, prefix: str) -> "ArgumentError":
        """Return the same error with `prefix`, such as "latent." or "--", before the argument's name."""
        return ArgumentError(f"{prefix}{self.argument}", self.problem)


class Preempted(BaseException):
    """The run was asked to stop and has saved what it has; the message is one line.

    Like KeyboardInterrupt, not an `Exception`: code that catches library errors must not mistake it for a failure.
    """


def exit_status(command: Callable[[], None], *, interrupted: str = "interrupted") -> int:
    """Run `command`; return 0, or 1 or 130 after one line on stderr where it failed or was interrupted."""
    try:
        command()
    except Preempted as stop:
        print(stop, file=sys.stderr, flush=True)
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that was removed
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0
