"""The exceptions that a user meets."""


class InputError(ValueError):
    """Bad input: the message is one sentence that names the file or argument and says what to do.

    The scripts print it without a traceback.

    Attributes:
        status: that they exit with.
    """

    status = 2


class Diverged(InputError):
    """A training whose loss is no finite number any more: the input was good, the settings were not."""

    status = 1


class Interrupted(Exception):
    """Work stopped at a signal and can be resumed.

    Attributes:
        signal_number: which signal.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
