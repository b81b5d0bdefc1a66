"""What a folder says of itself: model_index.json, which names the pipeline and the class of each of its parts.

It is data. No class is imported by its name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.core.messages import line
from diffusion_jax.pretrained.first_stages import FOLDERS
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.tokenizers.folders import NAMES

FILE = "model_index.json"
# Parts that look at pictures when they are done, or mark them. Nothing that is drawn depends on them.
AFTERWARDS = ("safety_checker", "feature_extractor", "watermarker")


class Index(NamedTuple):
    """A folder of several networks.

    Attributes:
      root: the folder.
      kind: the pipeline's class.
      parts: folder of a part -> its class, of those that are there.
      name: as a person gave it: the folder, or its name on the hub.
    """

    root: Path
    kind: str
    parts: Mapping[str, str]
    name: str

    def check(self, *needed: str) -> None:
        """`InputError` where a part is missing, by its name."""
        for part in needed:
            if not (self.root / part).is_dir():
                raise InputError(f"{self.root}, a {self.kind}, has no folder {part}/; get the whole of it")

    def flag(self, name: str) -> bool | None:
        """A value of the pipeline's own, or None where the file does not say; `InputError` unless true or false."""
        said = json_object(self.root / FILE).get(name)
        if said is not None and type(said) is not bool:
            raise InputError(f"{self.root / FILE}: {name} = {str(said)[:40]}; true or false")
        return said

    def tell_left_out(self) -> None:
        """Say on the screen which parts are not used."""
        # An encoder of pictures takes them as the feature extractor says.
        used = {"feature_extractor"} if "image_encoder" in self.parts else set()
        out = [f"{part}/ ({kind})" for part, kind in self.parts.items() if part in AFTERWARDS and part not in used]
        if out:
            line(f"left out of {self.name}: {', '.join(out)}; pictures are neither checked nor marked")


def located(name: str, variant: str = "", revision: str | None = None) -> Path:
    """The folder of a model: `name` itself, or what is downloaded where no such folder is, once.

    Of a pipeline come all parts that are used, each with its config and one set of weights; of another repository the
    network and its first stage.

    Args:
      name: a folder, or "owner/name" on the hub.
      variant: of the weights; of a pipeline not all parts need have it.
      revision: of the hub's repository.

    Raises:
      InputError: as of `files.downloaded`; or no part has the variant.
    """
    if Path(name).exists():
        return Path(name)
    variant = files.checked(variant)
    whole = index(files.downloaded(name, variant, revision, (), [FILE]), name)
    if whole is None:
        return files.downloaded(name, variant, revision, tuple(dict.fromkeys((*files.MODELS, *FOLDERS))))
    parts = [part for part in whole.parts if part not in AFTERWARDS]
    others = [f"{part}/{file}" for part in parts for file in (files.SCHEDULER, *NAMES)]
    if "image_encoder" in parts:
        others.append("feature_extractor/preprocessor_config.json")  # how its pictures are prepared
    root = files.downloaded(name, variant, revision, ("", *parts), [FILE, *others])
    without = [part for part in ("", *parts) if not files.variant_of(root / part, variant)]
    if variant and len(without) > len(parts):
        raise InputError(f"{name} has no weights of the variant {variant}; leave --variant out, or give one it has")
    return files.downloaded(name, "", revision, without) if variant else root


def index(root: Path, name: str = "") -> Index | None:
    """What the folder `root` says of itself; None where it has no model_index.json.

    Args:
      root: the folder.
      name: as a person gave it, for messages; "" for the folder.

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
    for part, value in given.items():
        if part.startswith("_") or type(value) is not list:
            continue  # a value of the pipeline's own
        if len(value) != 2 or not all(said is None or type(said) is str for said in value):
            raise InputError(f"{path}: {part[:50]} is {str(value)[:60]}; a library and a class are expected")
        if Path(part).name != part or "\\" in part:
            raise InputError(f"{path}: {part[:50]!r} is no name of a folder")
        if value[1] is not None:
            parts[part] = value[1]
    return Index(root, kind[:100], parts, name or str(root))
