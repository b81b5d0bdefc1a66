"""The exceptions that are meant for the person at the keyboard: one line, and what to do."""


class InputError(ValueError):
    """Bad input that its giver can mend: the message names the value and the remedy, in one line.

    The command lines print the message alone, without a traceback, and exit with status 2.
    """


class RunError(RuntimeError):
    """A run that had to stop: the message says where, what is safe, and how to go on, in one line.

    The command lines print the message alone and exit with status 1.
    """


class NotFiniteError(RunError):
    """Samples or numbers that are not finite, where nothing else is lost."""
