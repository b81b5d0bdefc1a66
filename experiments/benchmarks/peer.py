"""The peer of the benchmark: diffusers' UNet2DModel and DDPMScheduler in the usual PyTorch loops."""

from contextlib import nullcontext

import diffusers
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.benchmarks.ddpm import CHAIN, cores


def make(options, ours):
    """(about, training, sampling, memory); see `ddpm.Side`. `ours` says which network and optimiser to match."""
    device = {"cpu": "cpu", "gpu": "cuda"}.get(ours["platform"])
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return {"missing": f"this torch sees no {ours['platform']}"}, None, None, None
    _use_well(device)
    size, train = ours["shape"][0], ours["train"]
    model = unet(size, ours["shape"][-1], **ours["model"])
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), train["learning_rate"], fused=True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(train["ema_decay"]))
    average.eval().requires_grad_(False)
    apply, apply_average = (torch.compile(m) if options.compile else m for m in (model, average.module))
    scheduler = diffusers.DDPMScheduler(CHAIN, variance_type="fixed_large", clip_sample=True)
    scheduler.set_timesteps(CHAIN)
    shape = (options.batch, ours["shape"][-1], size, size)
    images = torch.randint(256, shape, dtype=torch.uint8)

    def precision():
        return torch.autocast(device, torch.bfloat16) if options.dtype == "bfloat16" else nullcontext()

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def channels_last(x):
        return x.to(device).contiguous(memory_format=torch.channels_last)

    def training():
        for _ in range(options.train_steps):
            x0 = channels_last(images).float() / 127.5 - 1
            noise = torch.randn_like(x0)
            t = torch.randint(CHAIN, (options.batch,), device=device)
            with precision():
                output = apply(scheduler.add_noise(x0, noise, t), t).sample
            loss = torch.nn.functional.mse_loss(output.float(), noise)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), train["clip_norm"], foreach=True)
            optimizer.step()
            average.update_parameters(model)
        wait()

    @torch.inference_mode()
    def sampling():
        x = channels_last(torch.randn(shape, device=device))
        for t in scheduler.timesteps[: options.sampling_steps]:
            with precision():
                output = apply_average(x, t).sample
            x = scheduler.step(output.float(), t, x).prev_sample
        x.cpu()  # which waits

    def memory():
        return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None

    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}, {torch.get_num_threads()} threads"
    about = {
        "name": "diffusers, compiled" if options.compile else "diffusers",
        "versions": versions + (", TF32 allowed, as in JAX" if device == "cuda" else ""),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "platform": ours["platform"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return about, training, sampling, memory


def unet(size, image_channels, channels, multipliers, blocks, attention_levels, dropout, groups, **_):
    """diffusers' network with the wiring of ours; the arguments are those of our config."""
    levels = range(len(multipliers))
    attended = ["Attn" if level in attention_levels else "" for level in levels]
    return diffusers.UNet2DModel(
        sample_size=size,
        in_channels=image_channels,
        out_channels=image_channels,
        block_out_channels=[channels * m for m in multipliers],
        layers_per_block=blocks,
        down_block_types=[f"{kind}DownBlock2D" for kind in attended],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(attended)],
        norm_num_groups=groups,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        add_attention=True,
        dropout=dropout,
    )


def _use_well(device):
    torch.set_num_threads(cores())
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, JAX's own default
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
