"""The one exception for a person's mistake."""


class InputError(ValueError):
    """A wrong value from the user: the message is one line naming what was expected, what came and what to do.

    Entry points print it without a stack trace; anything else that is raised is a defect of this package.
    """
