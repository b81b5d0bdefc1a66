"""Networks that read texts themselves (`ToldTexts`): they learn with their encoder, and draw with texts read once.

A chain that applied all of such a network would encode the same text at every step. Here a text is encoded before the
chain, with the empty text beside it, away from which guidance leads; the chain applies the rest of the network.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import EncodeTexts, Guide, Network, SampleFn, Tree
from diffusion_jax.diffusion import guidance, stages
from diffusion_jax.diffusion.stages import Shape, Stage
from diffusion_jax.methods import compose
from diffusion_jax.methods.compose import MakeGuide, Method, drawn_by
from diffusion_jax.methods.text_to_image.readers import Reader, Says
from diffusion_jax.models.encoders.told_texts import ToldTexts, entries
from diffusion_jax.pretrained.tokenizers import Tokenizer
from diffusion_jax.training.experiment import Experiment, MakeSampler, SampleRequest

TEXT, NETWORK = "text", "network"  # parts of the parameters of `ToldTexts`


def says(encoder: nn.Module) -> Says:
    """`(params, ids, mask) -> entries` of an encoder of texts, with its own parameters."""

    def say(params, ids, mask):
        return entries(encoder.apply({"params": params}, ids, mask), mask)

    return say


def reader(encoder: nn.Module, features: int, words: Any, read: Callable[[], Tree]) -> Reader:
    """An encoder that was trained here, as methods take published ones (`text_to_image.readers`).

    Args:
      encoder: `(ids [B, L], mask [B, L]) -> [B, L, features]`.
      features: D.
      words: its tokenizer, `data.captions.Words`.
      read: `() -> params`.
    """
    told = {
        "tokens": jax.ShapeDtypeStruct((words.length, features), jnp.float32),
        "token_mask": jax.ShapeDtypeStruct((words.length,), jnp.bool_),
    }
    tokenizer = Tokenizer(words.encode, lambda text: "", words.length, words.size)  # a long text is refused, not cut
    return Reader(tokenizer, says(encoder), told, lambda dtype=None: read())


def both(say: Says, params: Tree, cond: Any, empty: tuple) -> dict[str, jax.Array]:
    """What is said of texts, "ids" and "mask" [B, L], and as "null_NAME" of the empty one, [1, L]: [B, ...] each."""
    told, null = say(params, cond["ids"], cond["mask"]), say(params, *map(jnp.asarray, empty))
    return {**told, **stages.nulls({name: jnp.broadcast_to(x, told[name].shape) for name, x in null.items()})}


def both_stage(name: str, reader: Reader) -> Stage:
    """`both` as the first stage of a pipeline."""
    empty = reader.tokenizer.encode([""])
    plain = reader.stage(name)
    gives: dict[str, Shape] = {**plain.gives, **stages.nulls(plain.gives)}
    return plain._replace(run=lambda params, keys, cond: both(reader.says, params, cond, empty), gives=gives)


def guide_by_nulls(usual: float) -> MakeGuide:
    """The guide of chains that are told `both`; `usual` is the scale where none is asked for."""

    def guide(guidance_scale: float = usual) -> Guide:
        return guidance.by_nulls(guidance_scale)

    return guide


def chains(method: Method, network: Network, usual: float) -> dict[str, MakeSampler]:
    """The samplers of `method` by its network alone, which are told `both`."""

    def apply(params, *inputs):
        return network.apply({"params": params}, *inputs)

    shape, guide = method.data.shape, guide_by_nulls(usual)
    return drawn_by(method.chains, apply, method.parameterization, method.process, shape, guide)


def compose_read(
    config: ConfigDict, method: Method, model: ToldTexts, encode: EncodeTexts, usual: float
) -> Experiment:
    """`method`, whose network is `model`, as an experiment that encodes texts once a draw.

    Args:
      config: values, with the sections of `compose.base_config`.
      method: trained with the empty text for a share of the examples.
      model: its network.
      encode: `texts -> (ids, mask)`.
      usual: scale of guidance where none is asked for.
    """
    experiment = compose.compose(config, method)
    empty = encode([""])

    def read_first(make: MakeSampler) -> MakeSampler:
        def made(request: SampleRequest) -> SampleFn:
            draw = make(request)

            def sample(params, key, cond):
                known = both(says(model.text), request.gather(params[TEXT]), cond, empty)
                return draw(params[NETWORK], key, known)

            return on_any_mesh(sample)

        return made

    made = {name: read_first(make) for name, make in chains(method, model.network, usual).items()}

    def preview(batch):
        return made[method.preview](SampleRequest(batch, steps=config.log.preview_steps or None))

    return experiment._replace(sampling=experiment.sampling._replace(samplers=made, preview=preview))
