"""Configs of first stages: the published ones, and tiny ones of each kind."""

DOWN, ATTENDED_DOWN = "DownEncoderBlock2D", "AttnDownEncoderBlock2D"
UP, ATTENDED_UP = "UpDecoderBlock2D", "AttnUpDecoderBlock2D"


def levels(*widths, attended=(), **others):
    count = range(len(widths))
    return {
        "block_out_channels": list(widths),
        "down_block_types": [ATTENDED_DOWN if n in attended else DOWN for n in count],
        "up_block_types": [ATTENDED_UP if n in attended else UP for n in reversed(count)],
        "layers_per_block": 2,
    } | others


def kl(*widths, **others):
    return {"_class_name": "AutoencoderKL"} | levels(*widths, **others)


def vq(*widths, codes, **others):
    return {"_class_name": "VQModel", "num_vq_embeddings": codes} | levels(*widths, **others)


C = 128
# And the parameters of each.
PUBLISHED = {
    "kl-f8": (kl(C, 2 * C, 4 * C, 4 * C), 83_653_863),
    "kl-f4": (kl(C, 2 * C, 4 * C, latent_channels=3), 55_312_063),
    "kl-f16": (kl(C, C, 2 * C, 2 * C, 4 * C, latent_channels=16, attended=[4]), 69_610_963),
    "kl-f32": (kl(C, C, 2 * C, 2 * C, 4 * C, 4 * C, latent_channels=64, attended=[4, 5]), 103_880_131),
    "Stable Diffusion 3": (
        kl(C, 2 * C, 4 * C, 4 * C, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False),
        83_819_683,
    ),
    "vq-f4": (vq(C, 2 * C, 4 * C, codes=8192), 55_322_782),
    "vq-f4 without attention": (vq(C, 2 * C, 4 * C, codes=8192, mid_block_add_attention=False), 53_219_486),
    "vq-f8": (vq(C, 2 * C, 2 * C, 4 * C, codes=16384, latent_channels=4, attended=[3]), 67_717_295),
    "vq-f8 of 256 codes": (vq(C, 2 * C, 2 * C, 4 * C, codes=256, latent_channels=4, attended=[3]), 67_652_783),
    "vq-f16": (vq(C, C, 2 * C, 2 * C, 4 * C, codes=16384, latent_channels=8, attended=[4]), 69_593_371),
    "VQGAN of 1024": (vq(C, C, 2 * C, 2 * C, 4 * C, codes=1024, latent_channels=256, attended=[4]), 72_141_699),
    "VQGAN of 16384": (vq(C, C, 2 * C, 2 * C, 4 * C, codes=16384, latent_channels=256, attended=[4]), 76_073_859),
    "TAESD": ({"_class_name": "AutoencoderTiny"}, 2_445_063),
    "TAEF1": ({"_class_name": "AutoencoderTiny", "latent_channels": 16}, 2_458_899),
}
SMALL = {"norm_num_groups": 8, "layers_per_block": 1}
TINY = {
    # Attention on a level, one block a level, widths that change in both ways.
    "kl": kl(16, 24, attended=[1]) | SMALL,
    "kl without quant convolutions": kl(8, 16, latent_channels=5, use_quant_conv=False, use_post_quant_conv=False)
    | SMALL
    | {"shift_factor": 0.1, "scaling_factor": 1.5, "mid_block_add_attention": False},
    "vq": vq(16, 24, codes=9, vq_embed_dim=5, in_channels=1, out_channels=1) | SMALL,
    "tiny": {
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": [8] * 2,
        "decoder_block_out_channels": [8] * 2,
        "num_encoder_blocks": [1, 2],
        "num_decoder_blocks": [2, 1],
    },
}
