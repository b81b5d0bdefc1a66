"""Weights and configs where they are kept: files, folders of diffusers and transformers, and the Hugging Face hub."""

from collections.abc import Iterable, Sequence
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import MEBIBYTE, json_object
from diffusion_jax.pretrained.formats import safetensors_file, torch_file
from diffusion_jax.pretrained.formats.stored import Stored

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"  # how their files of weights are named
# Those names by what the file is, in the order of preference: .safetensors before .bin.
STEMS = {".safetensors": (DIFFUSERS, TRANSFORMERS), ".bin": (DIFFUSERS, "pytorch_model")}
MODELS = ("", "unet", "transformer", "controlnet")  # folders of a pipeline where a model of ours may be
# What is wrapped around a module adds to the names of what is inside: parts of names, and the first part of all.
WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
PARALLEL = "module."
SCHEDULER = "scheduler_config.json"
TORCH = (".bin", ".pt", ".pth", ".ckpt")
INDEX = 8 * MEBIBYTE  # bytes of the index of a sharded file: of some 80,000 arrays


class Component(NamedTuple):
    """A published model.

    Attributes:
      config: its config.json.
      weights: name -> `Stored`, its arrays, still in their files.
      scheduler: scheduler_config.json of its pipeline; None where there is none.
    """

    config: dict
    weights: dict[str, Stored]
    scheduler: dict | None


def weights(path: str | Path, key: str | None = None) -> dict[str, Stored]:
    """The arrays of a file, still in the file: name -> `Stored`.

    Names are those of the network itself, without what torch.compile and parallel training put before them.

    Args:
      path: a file of safetensors or of torch.save (.bin, .pt, .pth, .ckpt), or the index of a sharded one
        (.safetensors.index.json, .bin.index.json).
      key: for a file of torch.save, where its state dict is (`torch_file.load`).

    Raises:
      InputError: the file is of another kind, cannot be read or is damaged.
    """
    path = Path(path)
    if path.suffix == ".json":
        return unwrapped(_sharded(path))
    if path.suffix == ".safetensors":
        return unwrapped(safetensors_file.load(path))
    if path.suffix in TORCH:
        return unwrapped(torch_file.load(path, key))
    raise InputError(f"{path}: weights are read from files named .safetensors, .json, {', '.join(TORCH)}")


def unwrapped(weights: dict[str, Stored]) -> dict[str, Stored]:
    """`weights` by the names of the network itself.

    Raises:
      InputError: two of them have the same name then.
    """
    names = {name: ".".join(part for part in name.split(".") if part not in WRAPPED) for name in weights}
    while names and all(name.startswith(PARALLEL) for name in names.values()):
        names = {wrapped: name.removeprefix(PARALLEL) for wrapped, name in names.items()}
    found = {name: weights[wrapped] for wrapped, name in names.items()}
    if len(found) < len(weights):
        twice = next(name for name in found if list(names.values()).count(name) > 1)
        raise InputError(f"{twice[:100]!r} is in the weights twice, wrapped and as itself; get them again")
    return found


def component(
    name: str | Path, variant: str = "", revision: str | None = None, folders: Sequence[str] = MODELS
) -> Component:
    """A model in the layout of diffusers or transformers, with the config of its scheduler.

    Args:
      name: a folder: of the model (config.json and weights), or of a pipeline that has it in one of `folders`. That
        of a model, unet_ema/ say, may lie in the pipeline's, or in a checkpoint's in it. Or, where no such folder
        exists, its name on the hub, "owner/name", which is downloaded once.
      variant: of the weights, such as "fp16"; ".fp16" is the same.
      revision: of the hub's repository: a branch, a tag or a commit.
      folders: of a pipeline, "" for its own; the first that has a config.json is taken.

    Raises:
      InputError: no such folder or model, or files that are missing or damaged.
    """
    found = component_if(name, variant, revision, folders)
    if found is None:
        listed = ", ".join(f"{folder}/" for folder in folders if folder)
        raise InputError(f"{name} holds no config.json, nor do {listed} in it")
    return found


def component_if(
    name: str | Path, variant: str = "", revision: str | None = None, folders: Sequence[str] = MODELS
) -> Component | None:
    """`component`, or None where none of `folders` has a config.json."""
    variant, root = checked(variant), Path(name)
    if not root.exists():
        root = downloaded(str(name), variant, revision, folders)
    folder = next((root / model for model in folders if (root / model / "config.json").is_file()), None)
    if folder is None:
        return None
    schedulers = [root / SCHEDULER, root / "scheduler" / SCHEDULER]
    if folder == root:
        schedulers += [above / "scheduler" / SCHEDULER for above in root.absolute().parents[:2]]
    scheduler = next((json_object(path) for path in schedulers if path.is_file()), None)
    return Component(json_object(folder / "config.json"), weights(_weights_file(folder, variant)), scheduler)


def checked(variant: str) -> str:
    """A variant without the dot before it; `InputError` where it is no part of a name."""
    variant = variant.removeprefix(".")
    if "/" in variant or "\\" in variant:
        raise InputError(f"a variant is a part of the weights' name, such as fp16, not {variant[:100]!r}")
    return variant


def variant_of(folder: Path, variant: str) -> str:
    """`variant`, where the folder has weights of it, else "": of a pipeline not all parts have each."""
    return variant if any((folder / name).is_file() for name in _names(checked(variant))) else ""


def _weights_file(folder: Path, variant: str) -> Path:
    found = next((folder / name for name in _names(variant) if (folder / name).is_file()), None)
    if found is not None:
        return found
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", *TORCH))
    listed = f"it has {', '.join(others[:5])}" if others else "it has no weights"
    dot = f".{variant}" if variant else ""
    raise InputError(f"{folder} has no {TRANSFORMERS}{dot} and no {DIFFUSERS}{dot}.safetensors or .bin; {listed}")


def _names(variant: str, kinds: Iterable[str] = STEMS) -> list[str]:
    """How a file of weights, or the index of a sharded one, may be named, what is preferred first."""
    dot = f".{variant}" if variant else ""
    stems = ((stem, kind) for kind in kinds for stem in STEMS[kind])
    # Both orders of a variant and the index are in use.
    return [
        f"{stem}{ending}"
        for stem, kind in stems
        for ending in (f"{dot}{kind}", f"{kind}.index{dot}.json", f"{dot}{kind}.index.json")
    ]


def _sharded(path: Path) -> dict[str, Stored]:
    shards = _shards(path)
    read = {".safetensors": safetensors_file.load, ".bin": torch_file.load}
    parts = {file: read[Path(file).suffix](path.parent / file) for file in set(shards.values())}
    for name, file in shards.items():
        if name not in parts[file]:
            raise InputError(f"{path}: tensor {name[:100]!r} is not in {file}; get both again")
    return {name: parts[file][name] for name, file in shards.items()}


def _parts(path: Path) -> set[str]:
    """The files beside an index that it names; of a file that is none, nothing."""
    return set(_shards(path).values()) if path.suffix == ".json" else set()


def _shards(path: Path) -> dict[str, str]:
    """Name of an array -> the file beside `path` in which it is."""
    shards: Any = json_object(path, INDEX).get("weight_map")
    if type(shards) is not dict or not all(type(file) is str for file in shards.values()):
        raise InputError(f"{path} has no weight_map of names to files")
    for file in set(shards.values()):
        if Path(file).name != file or "\\" in file or not file.endswith((".safetensors", ".bin")):
            raise InputError(f"{path} points to {file!r}; parts must be files of safetensors or .bin beside it")
    return shards


def downloaded(
    name: str, variant: str, revision: str | None, folders: Sequence[str], others: Sequence[str] = ()
) -> Path:
    """Files of a repository on the hub, downloaded once; the folder where they are.

    Of each folder that has a config.json come its weights: of safetensors where there are some, else of torch.save.
    Other variants, the originals and the files of other libraries stay there.

    Args:
      name: "owner/name".
      variant: of the weights, such as "fp16".
      revision: a branch, a tag or a commit.
      folders: where models may be, "" for the repository's own.
      others: further files, by their paths.

    Raises:
      InputError: it is no such name, or the hub refuses.
    """
    owner, slash, model = name.partition("/")
    if not slash or not owner.strip(".") or not model or "/" in model or "\\" in name or model.startswith("."):
        raise InputError(f"{name} is neither a folder nor a name on the hub (owner/name)")
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"no folder {name}; to download it: pip install 'diffusion_jax[hub]'") from error

    def fetch(wanted: Iterable[str]) -> Path:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(wanted)))

    def within(at: Iterable[str], files: Iterable[str]) -> list[str]:
        files = list(files)
        return [escape(f"{folder}/{file}".removeprefix("/")) for folder in at for file in files]

    def found(folder: str) -> list[Path]:
        return [path for file in _names(variant) if (path := root / folder / file).is_file()]

    try:
        described = within((*folders, "scheduler"), ["config.json", SCHEDULER])
        root = fetch([*described, *map(escape, others), *within(folders, _names(variant, (".safetensors",)))])
        bare = [folder for folder in folders if (root / folder / "config.json").is_file() and not found(folder)]
        if bare:
            fetch(within(bare, _names(variant, (".bin",))))
        shards = [(path.parent, part) for folder in folders for path in found(folder) for part in _parts(path)]
        if shards:
            fetch(escape(str((folder / part).relative_to(root))) for folder, part in shards)
    except InputError:
        raise
    except Exception as error:  # of the hub's many: no such model, no access, no connection, no space
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"cannot download {name} from the hub ({type(error).__name__}: {reason})") from error
    return root
