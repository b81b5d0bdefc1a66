"""The encoders of texts that a folder has, by the class of its pipeline."""

from collections.abc import Callable

from diffusion_jax.core.errors import InputError
from diffusion_jax.pipelines.index import Index
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
    check_skipped(index.name, index, reading)
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
DEEP_FLOYD = tuple(
    f"IF{kind}{size}Pipeline" for kind in ("", "Img2Img", "Inpainting") for size in ("", "SuperResolution")
)


SKIPPING = (*PLAIN, *XL, *STABLE_UNCLIP)  # whose prompts may leave layers out


def check_skipped(name: str, index: Index | None, reading: Reading) -> None:
    """`InputError` where layers are to be left out and the model `name` reads no states of CLIP's."""
    kind = index.kind if index else "network by itself"
    if reading.skipped and kind not in SKIPPING:
        raise InputError(
            f"--clip-skip {reading.skipped}: {name} is a {kind}, which leaves no layers of CLIP out; leave it out"
        )


def _plain(index: Index, reading: Reading) -> Texts:
    """Stable Diffusion 1 and 2: the last state, normalised. Padding is read as it is."""
    return Texts((_stable(index, reading),))


def _stable(index: Index, reading: Reading) -> Part:
    """The encoder of Stable Diffusion; with layers left out, the state before them, normalised as the last is."""

    def state(skipped: int) -> Entries:
        return lambda said, mask: {TOKENS: said.normed[-1 - skipped]}

    return _skipping(index, reading, "", state, 1)


def _xl(index: Index, reading: Reading) -> Texts:
    """XL: of each encoder the state before the last, not normalised; of the second also the pooled row.

    Its refiner has the second alone.
    """

    def first(skipped: int) -> Entries:
        return lambda said, mask: {TOKENS: said.states[-2 - skipped]}

    def second(skipped: int) -> Entries:
        return lambda said, mask: {TOKENS: said.states[-2 - skipped], POOLED: said.pooled}

    both = [("", first)] if "text_encoder" in index.parts else []
    parts = tuple(_skipping(index, reading, end, state, 2) for end, state in [*both, ("_2", second)])
    return Texts(parts, zeros=index.flag("force_zeros_for_empty_prompt") is not False)


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

    own = _stable(index, reading)
    prior = _of(index, reading, "prior_tokenizer", "prior_text_encoder", of_prior)
    # What pictures should not show is told the network of latents alone.
    return Texts((own, prior._replace(steered=False)))


def _deep_floyd(index: Index, reading: Reading) -> Texts:
    """DeepFloyd's IF: all rows of T5, which itself does not see the padding."""
    part = _part(index, reading, "", lambda said, mask: {TOKENS: said}, T5_LENGTH)
    return Texts((part,), clean=lambda text: text.lower().strip())


def _skipping(index: Index, reading: Reading, end: str, state: Callable[[int], Entries], usual: int) -> Part:
    """An encoder of CLIP's, of whose layers prompts leave the last few out, and what withholds them leaves none.

    Args:
      end: of the names of its folders.
      state: `layers that are left out -> entries`.
      usual: which state from the end is read where none are left out.
    """
    part = _part(index, reading, end, state(reading.skipped))
    if not reading.skipped:
        return part
    layers = getattr(part.encoder.network.model, "layers", 0)
    if reading.skipped > layers - usual:
        raise InputError(
            f"--clip-skip {reading.skipped}: text_encoder{end}/ of {index.name} has {layers} layers; "
            f"give at most {max(0, layers - usual)}"
        )
    return part._replace(null=state(0))


def _part(index: Index, reading: Reading, end: str, entries: Entries, length: int | None = None) -> Part:
    return _of(index, reading, f"tokenizer{end}", f"text_encoder{end}", entries, length)


def _of(
    index: Index, reading: Reading, tokenizer: str, encoder: str, entries: Entries, length: int | None = None
) -> Part:
    index.check(tokenizer, encoder)
    network = reading.encoder(index.root, encoder)
    pieces = tokenizers.opened(index.root / tokenizer, length, network.config.get("vocab_size"))
    return Part(pieces, network, entries)
