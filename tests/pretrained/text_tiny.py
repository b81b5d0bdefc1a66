"""Tiny pipelines of texts, made by diffusers and transformers with weights at random and saved as they save them."""

import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel

LETTERS = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("t", "h"), ("th", "e</w>")]
START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 16
SMALL = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "sample_size": 8,
}


def tokenizer(pad=END):
    """CLIP's, of letters and six merges: 520 pieces."""
    pieces = [*LETTERS, *(letter + "</w>" for letter in LETTERS), *("".join(pair) for pair in MERGES), START, END]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=MERGES, pad_token=pad, model_max_length=LENGTH)


def encoder(kind=transformers.CLIPTextModel, width=32, seed=0, **config):
    torch.manual_seed(seed)
    said = {"vocab_size": 520, "hidden_size": width, "intermediate_size": 40, "num_hidden_layers": 3}
    said |= {"num_attention_heads": 4, "max_position_embeddings": LENGTH, "projection_dim": 24, "eos_token_id": 519}
    return redrawn(kind(transformers.CLIPTextConfig(**(said | {"bos_token_id": 518} | config))))


def of_pictures(seed=6):
    """CLIP's encoder of pictures, as wide as the encoder of texts, and what prepares pictures for it."""
    torch.manual_seed(seed)
    said = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    said |= {"image_size": 16, "patch_size": 8, "projection_dim": 24}
    side = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    network = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**said))
    return {"image_encoder": redrawn(network), "feature_extractor": transformers.CLIPImageProcessor(**side)}


def unet(seed=1, **config):
    torch.manual_seed(seed)
    return redrawn(UNet2DConditionModel(**(SMALL | {"cross_attention_dim": 32, "attention_head_dim": 4} | config)))


def vae(seed=2, **config):
    torch.manual_seed(seed)
    said = {"block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": 4, "sample_size": 16}
    said |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return redrawn(AutoencoderKL(**(said | config)))


def redrawn(network):
    """All weights anew: layers that start at zero hide what is before them."""
    with torch.no_grad():
        for name, x in network.named_parameters():
            scale = x.shape[1] ** -0.5 if x.ndim > 1 else 0.1
            x.copy_(torch.randn(x.shape) * scale + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return network.eval()


def t5_tokenizer():
    """T5's, of single letters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [
        ("\u2581", -2.0),
        *((letter, -3.0 - 0.01 * n) for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz,!")),
    ]
    return transformers.T5Tokenizer(vocab=special + pieces, extra_ids=0, model_max_length=77)


def t5(seed=8, **config):
    torch.manual_seed(seed)
    said = {"vocab_size": 72, "d_model": 48, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    said |= {"feed_forward_proj": "gated-gelu"}
    return redrawn(transformers.T5EncoderModel(transformers.T5Config(**(said | config))))
