"""Exceptions that end a command with a one-line message."""


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

    def __init__(self, message: str = "", *, status: int = 0) -> None:
        """Give the command's exit `status`: 0 if a scheduler may go on, 130 if the user pressed ctrl-C."""
        super().__init__(message)
        self.status = status


def stop_behind(error: BaseException) -> BaseException | None:
    """Return the Preempted or KeyboardInterrupt during whose handling `error` was raised; None if there is none.

    A stop within a library's clean-up can make that fail in turn, such as `threading`'s with "release unlocked lock".
    """
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, Preempted | KeyboardInterrupt):
        behind = behind.__context__
    return behind
