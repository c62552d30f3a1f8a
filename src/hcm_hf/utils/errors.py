"""The exceptions that a user can see."""


class InputError(ValueError):
    """Bad input: the message is one sentence that names the file or argument and says what to do.

    The scripts print it without a traceback.

    Attributes:
        status: exit status of a script.
    """

    status = 2


class Diverged(InputError):
    """A training whose loss is not finite any more: the input was good, the settings were not."""

    status = 1


class Interrupted(Exception):
    """Work was stopped by a signal and can be resumed.

    Attributes:
        signal_number: number of the signal.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
