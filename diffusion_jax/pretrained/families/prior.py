"""unCLIP's prior and the projections of its decoder: configs and names of diffusers' files, and ours."""

from collections.abc import Mapping
from typing import Any

from diffusion_jax.models.encoders.text_projection import TextProjection
from diffusion_jax.models.transformers.prior import ROWS, PriorTransformer
from diffusion_jax.pretrained import entries
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.layouts import Layout, linear
from diffusion_jax.pretrained.published import LAYERS, Network, Values, shape
from diffusion_jax.pretrained.wiring import affine, norm

PRIOR = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
    "additional_embeddings": ROWS,
    "dropout": 0.0,
    "time_embed_act_fn": "silu",
    "norm_in_type": None,
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "added_emb_type": "prd",
    "time_embed_dim": None,
    "embedding_proj_dim": None,
    "clip_embed_dim": None,
}
FIXED = (
    *("additional_embeddings", "added_emb_type", "dropout", "time_embed_act_fn"),
    *("norm_in_type", "embedding_proj_norm_type", "encoder_hid_proj_type"),
)
PROJECTION = {
    "clip_extra_context_tokens": 4,
    "clip_embeddings_dim": 768,
    "time_embed_dim": None,
    "cross_attention_dim": None,
}
NORMALIZER = {"embedding_dim": 768}
STATISTICS = ("clip_mean", "clip_std")  # of the embeddings that the prior's chain gives standardised

row = Layout(lambda theirs: (theirs[0],), lambda ours: ours[None])
only_row = Layout(lambda theirs: (theirs[0, 0],), lambda ours: ours[None, None])

BLOCK = {
    "attn1.to_q": "query",
    "attn1.to_k": "key",
    "attn1.to_v": "value",
    "attn1.to_out.0": "out",
    "ff.net.0.proj": "mlp_0",
    "ff.net.2": "mlp_1",
}


def prior(config: Mapping[str, Any]) -> Network:
    """PriorTransformer, as Karlo and Kandinsky 2 have it; it is told "text_embedding", "tokens" and "token_mask".

    Its parameters hold "clip_mean" and "clip_std" too, float [D]: an embedding is what the chain gives, times the
    second, plus the first (`diffusion.unclip.restored`).

    Args:
      config: its config.json.

    Raises:
      InputError: a value that is not known here.
    """
    values = Values(config, PRIOR, "PriorTransformer")
    features, tokens = values.integer("embedding_dim"), values.integer("num_embeddings")
    heads, layers = values.integer("num_attention_heads"), values.integer("num_layers", most=LAYERS)
    width = heads * values.integer("attention_head_dim")
    for name in FIXED:
        values.only(name, PRIOR[name])
    values.only("time_embed_dim", None, width)
    values.only("clip_embed_dim", None, features)
    if width < 4 or width % 2:
        values.refuse("attention_head_dim", values["attention_head_dim"], "an even width of at least 4 is expected")
    text = features if values["embedding_proj_dim"] is None else values.integer("embedding_proj_dim")
    told = {
        "text_embedding": shape(1, text),
        "tokens": shape(1, tokens, features),
        "token_mask": shape(1, tokens, dtype=bool),
    }
    model = PriorTransformer(tokens, width, layers, heads)
    beside = dict.fromkeys(STATISTICS, shape(features))
    return Network(model, (shape(1, features), shape(1), told), _prior(layers), beside)


def text_projection(config: Mapping[str, Any]) -> Network:
    """UnCLIPTextProjModel. Its call takes embeddings of image and text, the text's tokens, and their mask.

    Arguments and errors as of `prior`.
    """
    values = Values(config, PROJECTION, "UnCLIPTextProjModel")
    names = ("clip_extra_context_tokens", "cross_attention_dim", "time_embed_dim")
    features, sizes = values.integer("clip_embeddings_dim"), [values.integer(name) for name in names]
    embedding = shape(1, features)
    example = embedding, embedding, shape(1, 1, features), shape(1, 1, dtype=bool)
    return Network(TextProjection(*sizes), example, _text_projection())


def normalizer(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """StableUnCLIPImageNormalizer: "mean" and "std" of embeddings, float32 [D], for `diffusion.unclip.renoised`.

    Args:
      config: its config.json.
      weights: name -> array, of its file.

    Raises:
      InputError: a value that is not known here, or as of `entries.read`.
    """
    features = Values(config, NORMALIZER, "StableUnCLIPImageNormalizer").integer("embedding_dim")
    names = ("mean", "std")
    return entries.read(dict.fromkeys(names, shape(features)), [Entry(name, (name,), row) for name in names], weights)


def _prior(layers: int) -> list[Entry]:
    table = [
        *affine("time_embedding.linear_1", "time_0", linear),
        *affine("time_embedding.linear_2", "time_1", linear),
        *affine("proj_in", "input", linear),
        *affine("embedding_proj", "text", linear),
        *affine("encoder_hidden_states_proj", "tokens", linear),
        Entry("positional_embedding", ("positions",), row),
        Entry("prd_embedding", ("read",), only_row),
    ]
    for i in range(layers):
        theirs, ours = f"transformer_blocks.{i}", f"transformer/block_{i}"
        table += norm(f"{theirs}.norm1", f"{ours}/norm_0") + norm(f"{theirs}.norm3", f"{ours}/norm_1")
        table += [e for a, b in BLOCK.items() for e in affine(f"{theirs}.{a}", f"{ours}/{b}", linear)]
    table += norm("norm_out", "norm") + affine("proj_to_clip_embeddings", "output", linear)
    return table + [Entry(name, (name,), row) for name in STATISTICS]


def _text_projection() -> list[Entry]:
    return [
        Entry("learned_classifier_free_guidance_embeddings", ("null",)),
        *affine("embedding_proj", "text", linear),
        *affine("clip_image_embeddings_project_to_time_embeddings", "image", linear),
        *affine("clip_extra_context_tokens_proj", "extra", linear),
        *affine("encoder_hidden_states_proj", "tokens", linear),
        *norm("text_encoder_hidden_states_norm", "norm"),
    ]
