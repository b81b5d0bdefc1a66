"""The encoders of texts that a folder has, by the class of its pipeline."""

from collections.abc import Callable

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.pipelines.index import FILE, Index
from diffusion_jax.pipelines.prompts import Entries, Part, Texts
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pipelines.told import POOLED, TOKEN_MASK, TOKENS
from diffusion_jax.pretrained import tokenizers

EMBEDDING = "text_embedding"
T5_LENGTH = 77  # tokens that DeepFloyd's IF reads


def of_folder(index: Index, reading: Reading) -> Texts | None:
    """What the folder makes of texts; None where pipelines of its class are not known, or it reads none.

    Args:
      index: the folder.
      reading: how the weights are read.

    Raises:
      InputError: a part is missing, or is of another kind, or a tokenizer of another vocabulary than its encoder.
    """
    kinds: dict[str, Callable[[Index, Reading], Texts]] = {
        **dict.fromkeys(PLAIN, _plain),
        **dict.fromkeys(XL, _xl),
        **dict.fromkeys(UNCLIP, _unclip),
        **dict.fromkeys(STABLE_UNCLIP, _stable_unclip),
        **dict.fromkeys(DEEP_FLOYD, _deep_floyd),
    }
    return kinds[index.kind](index, reading) if index.kind in kinds else None


_STABLE = "StableDiffusion{}Pipeline"
PLAIN = (
    *(_STABLE.format(kind) for kind in ("", "Img2Img", "Inpaint", "ControlNet", "Upscale")),
    "StableUnCLIPImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
)
XL = tuple(_STABLE.format(f"XL{kind}") for kind in ("", "Img2Img", "Inpaint", "ControlNet"))
UNCLIP = ("UnCLIPPipeline", "UnCLIPImageVariationPipeline")
STABLE_UNCLIP = ("StableUnCLIPPipeline",)
DEEP_FLOYD = tuple(f"IF{kind}Pipeline" for kind in ("", "Img2Img", "Inpainting", "SuperResolution"))


def _plain(index: Index, reading: Reading) -> Texts:
    """Stable Diffusion 1 and 2: the last state, normalised. Padding is read as it is."""
    return Texts((_part(index, reading, "", lambda said, mask: {TOKENS: said.final}),))


def _xl(index: Index, reading: Reading) -> Texts:
    """XL: of each encoder the state before the last, not normalised; of the second also the pooled row.

    Its refiner has the second alone.
    """

    def first(said, mask):
        return {TOKENS: said.states[-2]}

    def second(said, mask):
        return {TOKENS: said.states[-2], POOLED: said.pooled}

    both = [("", first)] if "text_encoder" in index.parts else []
    parts = tuple(_part(index, reading, end, entries) for end, entries in [*both, ("_2", second)])
    zeros = json_object(index.root / FILE).get("force_zeros_for_empty_prompt", True)
    if type(zeros) is not bool:
        raise InputError(f"{index.root / FILE}: force_zeros_for_empty_prompt = {str(zeros)[:40]}; true or false")
    return Texts(parts, zeros=zeros)


def _unclip(index: Index, reading: Reading) -> Texts:
    """unCLIP: the last state, the projected row, and where there is text."""

    def entries(said, mask):
        return {TOKENS: said.final, EMBEDDING: said.pooled, TOKEN_MASK: mask}

    return Texts((_part(index, reading, "", entries),))


def _stable_unclip(index: Index, reading: Reading) -> Texts:
    """Stable unCLIP: what Stable Diffusion reads, and under "prior_NAME" what its prior does."""
    names = EMBEDDING, TOKENS, TOKEN_MASK

    def of_prior(said, mask):
        return {"prior_" + name: x for name, x in zip(names, (said.pooled, said.final, mask), strict=True)}

    own = _part(index, reading, "", lambda said, mask: {TOKENS: said.final})
    prior = _of(index, reading, "prior_tokenizer", "prior_text_encoder", of_prior)
    # What pictures should not show is told the network of latents alone.
    return Texts((own, prior._replace(steered=False)))


def _deep_floyd(index: Index, reading: Reading) -> Texts:
    """DeepFloyd's IF: all rows of T5, which itself does not see the padding."""
    part = _part(index, reading, "", lambda said, mask: {TOKENS: said}, T5_LENGTH)
    return Texts((part,), clean=lambda text: text.lower().strip())


def _part(index: Index, reading: Reading, end: str, entries: Entries, length: int | None = None) -> Part:
    return _of(index, reading, f"tokenizer{end}", f"text_encoder{end}", entries, length)


def _of(
    index: Index, reading: Reading, tokenizer: str, encoder: str, entries: Entries, length: int | None = None
) -> Part:
    index.check(tokenizer, encoder)
    pieces = tokenizers.opened(index.root / tokenizer, length)
    network = reading.encoder(index.root, encoder)
    rows = network.config.get("vocab_size", pieces.size)
    if pieces.size > rows:
        raise InputError(
            f"{index.root}: {tokenizer}/ has {pieces.size} pieces and {encoder}/ knows {rows}; "
            "they are of different models"
        )
    return Part(pieces, network, entries)
