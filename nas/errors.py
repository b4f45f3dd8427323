"""Errors that a person can mend. The command line prints them as one line, without a traceback."""


class UserError(Exception):
    """Something outside the engine is wrong. The message is one sentence that says what, and what to do."""
