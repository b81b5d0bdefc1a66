"""A command line of OpenAI's, as their READMEs print it: what it says of the network and of its chain.

A flag means what it means to improved-diffusion (Nichol & Dhariwal 2021) and guided-diffusion (Dhariwal & Nichol
2021). Each is used, or of no effect on samples (`TRAINING`), or refused with what to do instead.
"""

import re
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import timesteps
from diffusion_jax.pretrained.families.openai_flags import FLAGS
from diffusion_jax.pretrained.published import LARGEST

CHAIN = {
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "timestep_respacing": "",
    "use_ddim": False,
    "clip_denoised": True,
    "predict_xstart": False,
    "sigma_small": False,
    "rescale_timesteps": False,
}
TRUTHS = dict.fromkeys(("yes", "true", "t", "y", "1"), True) | dict.fromkeys(("no", "false", "f", "n", "0"), False)
# How a network came to be: no sample depends on it.
TRAINING = (
    *("data_dir", "val_data_dir", "schedule_sampler", "lr", "weight_decay", "lr_anneal_steps", "anneal_lr"),
    *("microbatch", "ema_rate", "log_interval", "save_interval", "eval_interval", "resume_checkpoint", "iterations"),
    *("fp16_scale_growth", "use_kl", "rescale_learned_sigmas"),
)
# What is said in other words here.
OURS = {"model_path": "--pretrained", "num_samples": "--num", "batch_size": "--batch"}
# What is not read here.
CLASSIFIER, UPSAMPLER = "classifier_", ("large_size", "small_size", "base_samples")


class Command(NamedTuple):
    """What a command line says.

    Attributes:
      network: flags for `openai_flags.unet`.
      chain: a value for each of `CHAIN`.
    """

    network: dict[str, Any]
    chain: dict[str, Any]


def read(text: str) -> Command:
    """A line such as "--image_size 64 --learn_sigma True ...". Where a flag is repeated the last one holds.

    Raises:
      InputError: the line is not pairs of --name value, or a flag or a value is not known, or not of use here.
    """
    words = _pairs(text)
    _refuse_foreign(words)
    known = FLAGS | CHAIN
    typed = {name: _typed(name, word, known[name]) for name, word in words.items() if name in known}
    chain = CHAIN | {name: value for name, value in typed.items() if name in CHAIN}
    num: Any = chain["diffusion_steps"]
    if not 1 <= num <= LARGEST:
        raise InputError(f"--diffusion_steps {num}: 1 to {LARGEST} are expected")
    if num != 1000 and "rescale_timesteps" not in words:
        raise InputError(
            f"--flags must say --rescale_timesteps True or False where --diffusion_steps is {num}: it is True by "
            "default in improved-diffusion, and False in guided-diffusion"
        )
    return Command({name: value for name, value in typed.items() if name in FLAGS}, chain)


def grid(respacing: str, num: int) -> Callable[[int | None], np.ndarray]:
    """`steps or None -> times`: the grid of `timestep_respacing`, of its own number of steps or of another.

    "" is the whole table, "250" and "10,15,20" are sections (`timesteps.sections`), "ddim25" is a stride
    (`timesteps.strided`). Another number of steps takes the place of all sections.

    Raises:
      InputError: it is none of these, or the table of `num` entries has no such grid.
    """
    form = re.fullmatch(r"(ddim)?(\d{1,9})((?:, *\d{1,9})*)", respacing or str(num), re.ASCII)
    if form is None or (form[1] and form[3]):
        raise InputError(f"--timestep_respacing {respacing[:99]}: give 250, 10,15,20 (of sections) or ddim25")
    counts = [int(form[2]), *map(int, form[3].split(",")[1:])]
    by_count = timesteps.strided if form[1] else timesteps.respaced
    own = timesteps.strided(counts[0], num) if form[1] else timesteps.sections(counts, num)
    return lambda steps: own if steps is None else by_count(steps, num)


def _pairs(text: str) -> dict[str, str]:
    """Name -> word; "--a 1" and "--a=1" are the same."""
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise InputError(f"--flags {text[:99]}: {str(error).lower()}; give pairs of --name value") from error
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for place, word in enumerate(words):
        if word.startswith("--") == bool(place % 2):
            raise InputError(f"--flags {text[:99]}: give pairs of --name value; {word!r} is not in its place")
    if len(words) % 2:
        raise InputError(f"--flags {text[:99]}: give pairs of --name value; {words[-1]} has no value")
    return {name[2:]: word for name, word in zip(words[::2], words[1::2], strict=True)}


def _refuse_foreign(words: dict[str, str]) -> None:
    """Refuse what cannot be used, all of it in one line."""
    upsampler = [f"--{name}" for name in words if name in UPSAMPLER]
    if upsampler:
        raise InputError(f"--flags {', '.join(upsampler)}: OpenAI's upsamplers are not read here")
    ours = {name: word[:99] for name, word in words.items() if name in OURS}
    drop = [f"--{name} {word} (here it is {OURS[name]} {word})" for name, word in ours.items()]
    by_classifier = [f"--{name}" for name in words if name.startswith(CLASSIFIER)]
    if by_classifier:
        drop.append(f"{', '.join(by_classifier)} (OpenAI's classifiers are not read here)")
    if drop:
        raise InputError(f"--flags: drop {'; '.join(drop)}")
    unknown = [f"--{name}" for name in words if name not in {*FLAGS, *CHAIN, *TRAINING}]
    if unknown:
        raise InputError(f"--flags: {', '.join(unknown)} is not known; known are {', '.join({**FLAGS, **CHAIN})}")


def _typed(name: str, word: str, default):
    """`word` as a value of the type of `default`."""
    kinds: dict[type, Callable[[str], Any]] = {
        bool: lambda word: TRUTHS[word.lower()],
        int: int,
        float: float,
        str: str,
    }
    try:
        return kinds[type(default)](word)
    except (ValueError, KeyError) as error:
        wanted = {bool: "True or False", int: "a whole number", float: "a number"}[type(default)]
        raise InputError(f"--flags: --{name} {word[:50]} is not {wanted}") from error
