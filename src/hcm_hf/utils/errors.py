"""The exceptions that a user can see."""

_LONGEST = 1000  # characters of a message; what it quotes from a file may be of any length


class InputError(ValueError):
    """Bad input: the message is one sentence that names the file or argument and says what to do.

    The scripts print it without a traceback. What a message quotes from a file cannot break its line, steer a terminal
    or fill the screen: characters that do not print are escaped, and the middle of a very long message is left out.

    Attributes:
        status: exit status of a script.
    """

    status = 2

    def __init__(self, message: str):
        shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in message)
        if len(shown) > _LONGEST:
            shown = f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 2 :]}"
        super().__init__(shown)


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
