"""What a folder says of itself: model_index.json, which names the pipeline and the class of each of its parts.

It is data. No class is imported by its name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.core.messages import line

FILE = "model_index.json"
# Parts that look at pictures when they are done, or mark them. Nothing that is drawn depends on them.
AFTERWARDS = ("safety_checker", "feature_extractor", "watermarker")


class Index(NamedTuple):
    """A folder of several networks.

    Attributes:
      root: the folder.
      kind: the pipeline's class.
      parts: folder of a part -> its class, of those that are there.
    """

    root: Path
    kind: str
    parts: Mapping[str, str]

    def check(self, *needed: str) -> None:
        """`InputError` where a part is missing, by its name."""
        for part in needed:
            if not (self.root / part).is_dir():
                raise InputError(f"{self.root}, a {self.kind}, has no folder {part}/; get the whole of it")

    def tell_left_out(self) -> None:
        """Say on the screen which parts are not used."""
        # An encoder of pictures takes them as the feature extractor says.
        used = {"feature_extractor"} if "image_encoder" in self.parts else set()
        out = [f"{part}/ ({kind})" for part, kind in self.parts.items() if part in AFTERWARDS and part not in used]
        if out:
            line(f"left out of {self.root}: {', '.join(out)}; pictures are neither checked nor marked")


def index(root: Path) -> Index | None:
    """What the folder `root` says of itself; None where it has no model_index.json.

    Raises:
      InputError: the file is damaged.
    """
    path = root / FILE
    if not path.is_file():
        return None
    given = json_object(path)
    kind = given.get("_class_name")
    if type(kind) is not str:
        raise InputError(f"{path} names no pipeline (_class_name)")
    parts = {}
    for name, value in given.items():
        if name.startswith("_") or type(value) is not list:
            continue  # a value of the pipeline's own
        if len(value) != 2 or not all(part is None or type(part) is str for part in value):
            raise InputError(f"{path}: {name[:50]} is {str(value)[:60]}; a library and a class are expected")
        if Path(name).name != name or "\\" in name:
            raise InputError(f"{path}: {name[:50]!r} is no name of a folder")
        if value[1] is not None:
            parts[name] = value[1]
    return Index(root, kind[:100], parts)
