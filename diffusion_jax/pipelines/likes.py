"""Pictures of a person as what networks are told: by the encoder of pictures that a folder has.

It runs before the chain and apart from it, once for each picture, and is let go before the network is read.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.core.protocols import OfImages, SampleCondition
from diffusion_jax.data import images
from diffusion_jax.diffusion.unclip import IMAGE
from diffusion_jax.pipelines.index import Index
from diffusion_jax.pipelines.prompts import PROMPT
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pretrained.encoders import Encoder
from diffusion_jax.pretrained.families import clip_images

LIKE = "like"  # the entry of a person's wishes: pictures of any size
ENCODER, PREPARATION, KIND = "image_encoder", "feature_extractor", "CLIPVisionModelWithProjection"


class Likes(NamedTuple):
    """What a pipeline makes of pictures.

    Attributes:
      encoder: CLIP's, with its projection.
      prepare: pictures as it takes them, [B, H, W, 3] in [-1, 1] -> [B, side, side, 3].
      features: of an embedding.
    """

    encoder: Encoder
    prepare: OfImages
    features: int

    def encoded(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings, float32 [N, D], of pictures uint8 [H, W, 3], each of any size."""
        model: Any = self.encoder.network.model
        params = self.encoder.read()
        encode = jax.jit(lambda params, x: model.apply({"params": params}, x).embedding)
        prepared = (self.prepare(jnp.asarray(images.to_float(picture)[None])) for picture in pictures)
        return np.concatenate([np.asarray(encode(params, x)) for x in prepared])


def of_folder(whole: Index, reading: Reading) -> Likes:
    """The encoder of pictures in the folder `whole`.

    Raises:
      InputError: a part is missing or of another kind, or pictures are prepared for another size than it takes.
    """
    whole.check(ENCODER, PREPARATION)
    encoder = reading.encoder(whole.root, ENCODER)
    if encoder.config.get("architectures") != [KIND]:
        raise InputError(f"{whole.root}: {ENCODER}/ is a {str(encoder.config.get('architectures'))[:60]}, no {KIND}")
    prepare = clip_images.preparation(json_object(whole.root / PREPARATION / clip_images.FILE))
    (example,) = encoder.network.example
    side = example.shape[1]
    found = jax.eval_shape(prepare, jax.ShapeDtypeStruct((1, 2 * side, side, 3), np.float32)).shape
    if found != example.shape:
        raise InputError(
            f"{whole.root}: {PREPARATION}/ prepares pictures as {list(found[1:])}, and {ENCODER}/ takes "
            f"{list(example.shape[1:])}; they are of different models"
        )
    return Likes(encoder, prepare, encoder.network.model.projection)


def telling(likes: Likes, text: Sequence[str], rest: SampleCondition) -> SampleCondition:
    """The condition `rest` of a network, which also takes "like", pictures; no text is as good as the empty one.

    Args:
      likes: what makes "image_embedding" of pictures.
      text: the entries that a text is.
      rest: takes "prompt" too.
    """

    def condition(num, given):
        given = dict(given)
        pictures = given.pop(LIKE, None)
        if pictures is None and IMAGE not in given:
            raise InputError("this model draws variations of a picture: give --like PICTURE")
        if pictures is not None and IMAGE in given:
            raise InputError(f"--like and --condition with {IMAGE} are different pictures; give one of them")
        if pictures is not None:
            given[IMAGE] = likes.encoded(list(pictures)[:num])
        if not {PROMPT, *text} & set(given):
            given[PROMPT] = np.array([""], object)
        return rest(num, given)

    return condition
