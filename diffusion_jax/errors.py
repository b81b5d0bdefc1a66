"""The one exception that is meant for the person at the keyboard."""


class InputError(ValueError):
    """Bad input that its giver can mend: the message names the value and the remedy, in one line.

    The command lines print the message alone, without a traceback, and exit with status 2.
    """
