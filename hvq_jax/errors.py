"""The one exception that the entry points turn into a single line for the user."""


class UserError(ValueError):
    """Something the user can mend: the message is one line that says what is wrong, where, and what to do."""
