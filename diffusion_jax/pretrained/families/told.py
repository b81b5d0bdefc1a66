"""What diffusers' conditioned U-Nets are told as one vector an example: their embeddings of classes and additions."""

from typing import Any, NamedTuple

from flax import linen as nn

from diffusion_jax.models.blocks.conditioning import (
    GivenEmbedding,
    LinearEmbedding,
    NumberEmbedding,
    SizesEmbedding,
    TokensEmbedding,
    VectorEmbedding,
)
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.families.diffusers_configs import activation_of, embedding_width, equal
from diffusion_jax.pretrained.layouts import linear
from diffusion_jax.pretrained.published import Values, shape
from diffusion_jax.pretrained.wiring import Wiring, affine, norm

PROJECTED = "projection_class_embeddings_input_dim"
IDS = 6  # height and width, top and left of the crop, height and width aimed at


class Told(NamedTuple):
    """What a network is told beside the time, and how.

    Attributes:
      embed: of `Skeleton`.
      example: name -> shape of a condition.
      entries: of the modules' parameters.
    """

    embed: dict[str, nn.Module]
    example: dict[str, Any]
    entries: list[Entry]

    def __or__(self, other: "Told") -> "Told":
        """Both."""
        return Told(self.embed | other.embed, self.example | other.example, self.entries + other.entries)


NOTHING = Told({}, {}, [])


def mlp(theirs: str, ours: str) -> list[Entry]:
    """Two dense layers (`layers.embedding_mlp`)."""
    return [
        *affine(f"{theirs}.linear_1", f"{ours}/dense_0", linear),
        *affine(f"{theirs}.linear_2", f"{ours}/dense_1", linear),
    ]


def classes(values: Values, wiring: Wiring) -> Told:
    """`class_embed_type`: "noise_level" of "timestep", "vector" of the others; a table of labels is the wiring's."""
    kind = values.only("class_embed_type", None, "timestep", "identity", "projection", "simple_projection")
    if kind is None:
        return NOTHING
    values.only("num_class_embeds", None)
    if kind == "timestep":
        embed = NumberEmbedding(width=wiring.widths[0], activation=activation_of(values))
        table = mlp("class_embedding", "embed_noise_level/embedding")
        return Told({"noise_level": embed}, {"noise_level": shape(1)}, table)
    if kind == "identity":
        return Told({"vector": GivenEmbedding()}, {"vector": shape(1, embedding_width(values, wiring))}, [])
    told = {"vector": shape(1, values.integer(PROJECTED))}
    if kind == "projection":
        return Told({"vector": VectorEmbedding()}, told, mlp("class_embedding", "embed_vector"))
    return Told({"vector": LinearEmbedding()}, told, affine("class_embedding", "embed_vector/dense", linear))


def additions(values: Values, width: int) -> Told:
    """`addition_embed_type`: of tokens of `width` features as one vector, or of a pooled text and sizes."""
    kind = values.only("addition_embed_type", None, "text", "text_time")
    if kind != "text_time":
        values.only("addition_time_embed_dim", None)
        if values["class_embed_type"] not in ("projection", "simple_projection"):
            values.only(PROJECTED, None)
    return {None: lambda: NOTHING, "text": lambda: _text(values, width), "text_time": lambda: _sizes(values)}[kind]()


def _text(values: Values, width: int) -> Told:
    """The tokens as one vector, before they are projected."""
    heads, ours = values.integer("addition_embed_type_num_heads"), "embed_tokens"
    if width % heads:
        values.refuse("addition_embed_type_num_heads", heads, f"a divisor of {width}, a token's width, is expected")
    pairs = (("q", "query"), ("k", "key"), ("v", "value"))
    table = [
        *norm("add_embedding.norm1", f"{ours}/norm_0"),
        Entry("add_embedding.pool.positional_embedding", (f"{ours}/position",)),
        *(e for a, b in pairs for e in affine(f"add_embedding.pool.{a}_proj", f"{ours}/{b}", linear)),
        *affine("add_embedding.proj", f"{ours}/out", linear),
        *norm("add_embedding.norm2", f"{ours}/norm_1"),
    ]
    return Told({"tokens": TokensEmbedding(heads)}, {}, table)


def _sizes(values: Values) -> Told:
    """A pooled text and sizes, as many as there is room for beside it."""
    width, inputs = values.integer("addition_time_embed_dim", 4), values.integer(PROJECTED)
    if width % 2:
        values.refuse("addition_time_embed_dim", width, "an even number of at least 4 is expected")
    if inputs <= IDS * width:
        values.refuse(PROJECTED, inputs, f"more than {IDS} x {width} are expected")
    # Beside a wider text there are fewer sizes (five in SDXL's refiner): the module takes both.
    told = {"pooled": shape(1, inputs - IDS * width), "time_ids": shape(1, IDS)}
    return Told({"sizes": SizesEmbedding(width, inputs)}, told, mlp("add_embedding", "embed_sizes"))


def tokens(values: Values, levels: int) -> tuple[int, int | None, list[Entry]]:
    """Features of a token that the network is given, those that it makes of these (None: the same), and the table."""
    read = equal(values, "cross_attention_dim", levels)
    if values["encoder_hid_dim"] is None:
        values.only("encoder_hid_dim_type", None)
        return read, None, []
    values.only("encoder_hid_dim_type", None, "text_proj")
    return values.integer("encoder_hid_dim"), read, affine("encoder_hid_proj", "project_tokens", linear)
