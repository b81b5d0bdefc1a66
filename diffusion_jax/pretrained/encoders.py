"""Published encoders of texts and pictures in one call: CLIP and T5, as diffusion models are told by them.

encoder = encoders.opened("stabilityai/stable-diffusion-2-1")
params = encoder.read()
tokens = encoder.network.model.apply({"params": params}, ids).final  # ids int [B, L]
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import ReadWeights, Tree
from diffusion_jax.pretrained import entries, lora
from diffusion_jax.pretrained.families import clip, t5
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.lora import Lora
from diffusion_jax.pretrained.published import Network

DTYPES = ("float32", "bfloat16", "float16", "float64")  # of which T5 refuses float16


class Encoder(NamedTuple):
    """A published encoder.

    Attributes:
      network: its module (`models.encoders`), and the table of its weights.
      config: its config.json.
      read: `(dtype=float32) -> params`; None leaves each array in the file's own dtype.
      masked: whether pipelines tell it which ids are text: T5 always, CLIP where the config says so.
    """

    network: Network
    config: dict[str, Any]
    read: ReadWeights
    masked: bool

    def save(self, params: Tree, path: str | Path) -> None:
        """Write parameters as a folder that `opened` and transformers read, in the dtypes that they have.

        Arrays have the names of transformers before 5.6, which all releases read. What is dropped when reading is not
        there, and the config names the class without it. Errors as of `entries.write`.
        """
        write(params, self.config, path)


class Kind(NamedTuple):
    """A class of transformers.

    Attributes:
      network: `(config, names of the file's arrays, dtype) -> Network`.
      ignored: how the names begin of what is in files and is not of the encoder.
      masked: `config -> whether` pipelines tell it which ids are text.
      written: the class as which it is written; "" for the same.
    """

    network: Callable[..., Network]
    ignored: tuple[str, ...]
    masked: Callable[[Mapping[str, Any]], bool]
    written: str = ""


def _always(config: Mapping[str, Any]) -> bool:
    return True


def _never(config: Mapping[str, Any]) -> bool:
    return False


_WHOLE_T5 = Kind(t5.encoder, t5.IGNORED, _always, "T5EncoderModel")
KINDS = {
    "CLIPTextModel": Kind(clip.text, clip.IGNORED, clip.masked),
    "CLIPTextModelWithProjection": Kind(clip.text_with_projection, clip.IGNORED, clip.masked),
    "CLIPVisionModel": Kind(clip.vision, clip.IGNORED, _never),
    "CLIPVisionModelWithProjection": Kind(clip.vision_with_projection, clip.IGNORED, _never),
    "CLIPModel": Kind(clip.whole, clip.IGNORED, _never),
    "T5EncoderModel": _WHOLE_T5,
    "T5ForConditionalGeneration": _WHOLE_T5,
    "T5WithLMHeadModel": _WHOLE_T5,  # the same, in the oldest files
    "T5Model": _WHOLE_T5,
}


def opened(
    name: str | Path,
    folder: str = "text_encoder",
    variant: str = "",
    revision: str | None = None,
    dtype: DTypeLike = np.float32,
    loras: Sequence[Lora] = (),
) -> Encoder:
    """An encoder of texts or pictures, published by transformers; only its config is read, until `read`.

    Known are the classes of `KINDS`. Of a whole T5 the decoder (decoder.*, lm_head.*) is left in the file; of CLIP's
    old files the tables position_ids are, which hold 0, 1, 2 and so on. Weights are read of files of safetensors and
    of torch.save, whole or sharded; OpenAI's own files of CLIP, which are programs, are refused.

    Args:
      name: a folder: of a pipeline that has it in `folder`, or the encoder's own; or "owner/name" on the hub.
      folder: of the pipeline: "text_encoder_2" or "image_encoder", say.
      variant: of the weights, such as "fp16".
      revision: of the hub's repository.
      dtype: of what the network computes. T5 takes no float16, which its numbers overflow.
      loras: what is added to the weights of the component `folder` (`lora.merged`).

    Raises:
      InputError: as of `files.component` and `lora.merged`; another class, or a value that is not implemented;
        weights of another network; or a dtype that is not of use.
    """
    config, weights, _ = files.component(name, variant, revision, (folder, ""))
    kind = KINDS[_kind(config)]
    weights = {array: stored for array, stored in weights.items() if not array.startswith(kind.ignored)}
    network = described(config, weights, dtype)
    entries.check_names(network.entries, weights)
    weights = lora.merged(weights, loras, folder) if loras else weights
    return Encoder(network, config, partial(network.read, weights), kind.masked(config))


def described(
    config: Mapping[str, Any], weights: Mapping[str, Any] | None = None, dtype: DTypeLike = np.float32
) -> Network:
    """The network of a config.json; `weights` are the arrays of its file, where there is one.

    Raises:
      InputError: another class, a value that is not implemented, or a dtype that is not of use.
    """
    if jnp.dtype(dtype).name not in DTYPES:
        raise InputError(f"an encoder computes in {', '.join(DTYPES)}, not in {jnp.dtype(dtype)}")
    return KINDS[_kind(config)].network(config, weights or {}, dtype)


def write(params: Tree, config: Mapping[str, Any], path: str | Path) -> None:
    """`Encoder.save`, of the encoder of a config.json."""
    name = _kind(config)
    kind = KINDS[name]
    dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(params)))
    said = {**config, "architectures": [kind.written or name], "torch_dtype": str(dtype)}
    said.pop("dtype", None)  # of the same meaning, since transformers 5
    entries.write(params, kind.network(config).entries, path, said, files.TRANSFORMERS)


def _kind(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    name = str(named[0]) if type(named) is list and len(named) == 1 else str(named)
    if name not in KINDS:
        raise InputError(f"an encoder of class {name[:100]!r} is not known; of use are {', '.join(KINDS)}")
    return name
