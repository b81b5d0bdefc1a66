"""What hostile files are made of, whatever their kind: cases, archives, and what may stand in a file's place."""

import os
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

MARK = "executed"  # the file that an executed attack leaves


class Case(NamedTuple):
    """Files to read.

    Attributes:
      name: of what is wrong with them.
      content: relative path -> bytes, or a function of the path that returns them or makes the file itself: large
        ones are made when it is their turn, for what this process holds counts in the ones that read.
    """

    name: str
    content: Mapping[str, bytes | Callable]


def fifo(path: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def zeros(path: Path) -> None:
    """A device without an end."""
    path.symlink_to("/dev/zero")


def unusual(name: str) -> list[Case]:
    """What may stand where a file should."""
    return [
        Case("pipe", {name: fifo}),
        Case("device", {name: zeros}),
        Case("folder", {f"{name}/inner": b""}),
        Case("nothing in it", {name: b""}),
        Case("no file", {"other": b""}),
        Case("a link to itself", {name: lambda path: path.symlink_to(path)}),
    ]


def zipped(members: Mapping[str, bytes], packing=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
