"""Ownership of file descriptors."""

import os


class Fd:
    """Owns one fd: closes it when its `with` block ends, unless `take` handed it on.

    Args:
        number: an open fd; -1 for none.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> "Fd":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The fd, still owned here.

        Raises:
            ValueError: it was closed or taken.
        """
        if self.number < 0:
            raise ValueError("fd was closed or taken")
        return self.number

    def take(self) -> int:
        """Hands the fd and the duty to close it to the caller."""
        number = self.fileno()
        self.number = -1
        return number

    def close(self) -> None:
        """Closes the fd; does nothing the second time."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)
