"""What is in the config.json of well-known published networks."""


def _up(down):
    return [block.replace("Downsample", "Upsample").replace("Down", "Up") for block in reversed(down)]


def _unet2d(down, **values):
    blocks = {"down_block_types": down, "up_block_types": _up(down)}
    return blocks | {"in_channels": 3, "out_channels": 3} | values


DDPM = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "center_input_sample": False,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "time_embedding_type": "positional",
}
DDPM_CIFAR10 = _unet2d(
    ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    block_out_channels=[128, 256, 256, 256],
    sample_size=32,
    **DDPM,
)
DDPM_256 = _unet2d(
    ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    block_out_channels=[128, 128, 256, 256, 512, 512],
    sample_size=256,
    **DDPM,
)
# Song et al.'s NCSN++, google/ncsnpp-celebahq-256 and its like.
NCSNPP_256 = _unet2d(
    ["SkipDownBlock2D"] * 4 + ["AttnSkipDownBlock2D"] + ["SkipDownBlock2D"] * 2,
    block_out_channels=[128, 128, 256, 256, 256, 256, 256],
    sample_size=256,
    **DDPM
    | {"downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "mid_block_scale_factor": 1.41421356237}
    | {"norm_num_groups": None, "time_embedding_type": "fourier"},
)
# The tutorial of diffusers; attention_head_dim and what else is absent has its default.
TUTORIAL = _unet2d(
    ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    block_out_channels=[128, 128, 256, 256, 512, 512],
    layers_per_block=2,
    sample_size=128,
)
CONSISTENCY_IMAGENET64 = _unet2d(
    ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    _class_name="UNet2DModel",
    act_fn="silu",
    add_attention=True,
    attention_head_dim=64,
    attn_norm_num_groups=32,
    block_out_channels=[192, 384, 576, 768],
    center_input_sample=False,
    class_embed_type=None,
    downsample_padding=1,
    downsample_type="resnet",
    dropout=0.0,
    flip_sin_to_cos=True,
    freq_shift=0,
    layers_per_block=3,
    mid_block_scale_factor=1,
    norm_eps=1e-05,
    norm_num_groups=32,
    num_class_embeds=1000,
    resnet_time_scale_shift="scale_shift",
    sample_size=64,
    time_embedding_type="positional",
    upsample_type="resnet",
)
# openai/diffusers-cd_bedroom256_l2 and its relatives: where the time is added, not multiplied.
CONSISTENCY_LSUN = CONSISTENCY_IMAGENET64 | _unet2d(
    ["ResnetDownsampleBlock2D"] * 3 + ["AttnDownBlock2D"] * 3,
    attn_norm_num_groups=None,
    block_out_channels=[256, 256, 512, 512, 1024, 1024],
    layers_per_block=2,
    num_class_embeds=None,
    resnet_time_scale_shift="default",
    sample_size=256,
)

STABLE_DIFFUSION = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
STABLE_DIFFUSION_2 = STABLE_DIFFUSION | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "sample_size": 96,
    "upcast_attention": True,
    "use_linear_projection": True,
}
# stabilityai/stable-diffusion-2-1-unclip and stable-diffusion-x4-upscaler.
STABLE_UNCLIP = STABLE_DIFFUSION_2 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}
STABLE_DIFFUSION_UPSCALER = STABLE_DIFFUSION_2 | {
    "attention_head_dim": 8,
    "block_out_channels": [256, 512, 512, 1024],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 7,
    "num_class_embeds": 1000,
    "only_cross_attention": [True, True, True, False],
    "sample_size": 128,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
CONTROLNET = {
    "_class_name": "ControlNetModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "class_embed_type": None,
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "controlnet_conditioning_channel_order": "rgb",
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_time_scale_shift": "default",
    "upcast_attention": False,
    "use_linear_projection": False,
}
# stabilityai/stable-diffusion-xl-base-1.0, its refiner, and diffusers/controlnet-canny-sdxl-1.0.
SDXL = STABLE_DIFFUSION_2 | {
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "class_embed_type": None,
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "encoder_hid_dim": None,
    "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "sample_size": 128,
    "time_embedding_act_fn": None,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
}
SDXL_REFINER = SDXL | {
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "projection_class_embeddings_input_dim": 2560,
    "transformer_layers_per_block": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
SDXL_CONTROLNET = CONTROLNET | {
    name: SDXL[name]
    for name in (
        "addition_embed_type",
        "addition_embed_type_num_heads",
        "addition_time_embed_dim",
        "attention_head_dim",
        "block_out_channels",
        "cross_attention_dim",
        "down_block_types",
        "projection_class_embeddings_input_dim",
        "transformer_layers_per_block",
        "use_linear_projection",
    )
}
# kakaobrain/karlo-v1-alpha's decoder, and DeepFloyd IF's first network, by its width.
KARLO_DECODER = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 64,
    "block_out_channels": [320, 640, 960, 1280],
    "center_input_sample": False,
    "class_embed_type": "identity",
    "cross_attention_dim": 1536,
    "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 3,
    "layers_per_block": 3,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "only_cross_attention": False,
    "out_channels": 6,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 64,
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
}


def deepfloyd(channels):
    return KARLO_DECODER | {
        "act_fn": "gelu",
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 64,
        "block_out_channels": [channels * times for times in (1, 2, 3, 4)],
        "class_embed_type": None,
        "cross_attention_dim": 4 * channels,
        "cross_attention_norm": "group_norm",
        "encoder_hid_dim": 4096,
        "encoder_hid_dim_type": "text_proj",
        "resnet_out_scale_factor": 1,
        "resnet_skip_time_act": False,
    }


# Karlo's two networks for 256x256.
KARLO_SUPER_RESOLUTION = CONSISTENCY_LSUN | _unet2d(
    ["ResnetDownsampleBlock2D"] * 4,
    add_attention=False,
    block_out_channels=[320, 640, 960, 1280],
    in_channels=6,
    layers_per_block=3,
)
