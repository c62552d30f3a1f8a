"""The one exception for input that the user can mend."""


class InputError(ValueError):
    """Bad input: the message is one sentence that names the file or argument and says what to do.

    The scripts print it without a traceback and exit with status 2.
    """
