"""The peer of the benchmark: diffusers' networks and schedulers in the usual PyTorch loops."""

import time
from contextlib import nullcontext

import diffusers
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.benchmarks.ddpm import CHAINS, TABLE, evaluations
from experiments.benchmarks.flops import best_rate
from experiments.benchmarks.shared import cores, host_memory


def make(options, ours):
    """`Peer`, or None where torch sees no such device as ours is. `ours` says what to match."""
    device = {"cpu": "cpu", "gpu": "cuda"}.get(ours["platform"])
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return None
    _use_well(device)
    return Peer(options, ours, device)


class Peer:
    """What the parent may ask of this side (`ddpm.measure`); `options.peer` is "eager" or "compiled"."""

    def __init__(self, options, ours, device):
        self._options, self._device, self._train = options, device, ours["train"]
        height, width, channels = ours["shape"]
        network = transformer if "patch" in ours["model"] else unet
        model = network(height, channels, **ours["model"])
        self._model = model.to(device, memory_format=torch.channels_last).train()
        self._optimizer = torch.optim.Adam(model.parameters(), self._train["learning_rate"], fused=True)
        self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self._train["ema_decay"]))
        self._average.eval().requires_grad_(False)
        compiled = torch.compile if options.peer == "compiled" else lambda module: module
        self._apply, self._apply_average = compiled(model), compiled(self._average.module)
        table = {"num_train_timesteps": TABLE, "beta_start": 1e-4, "beta_end": 0.02}
        clipped = table | {"clip_sample": ours["clip"]}
        self._schedulers = {
            "ancestral": diffusers.DDPMScheduler(**clipped, variance_type=ours["variance"]),
            "ddim": diffusers.DDIMScheduler(**clipped, timestep_spacing="leading"),
            "heun": diffusers.HeunDiscreteScheduler(**table, timestep_spacing="trailing"),
        }
        self._step_options = {"ddim": {"use_clipped_model_output": True}}  # as ours
        self._shape = (options.batch, channels, height, width)
        # On the host, as a loader leaves them.
        images = torch.randint(256, self._shape, dtype=torch.uint8)
        self._images = images if ours["clip"] else torch.randn(self._shape)
        classes = ours["model"].get("classes")
        self._labels = None if classes is None else torch.randint(classes, (options.batch,))
        self._withheld = ours["model"].get("withheld")
        products = {"float32": tf32() if device == "cuda" else "float32", "bfloat16": "bfloat16 (autocast)"}
        self._about = {
            "name": f"diffusers, {options.peer}",
            "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}, "
            f"{torch.get_num_threads()} threads",
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "platform": ours["platform"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "precision": f"products and convolutions {products[options.dtype]}, parameters float32, channels-last",
        }

    def about(self) -> dict:
        return self._about

    def first(self, task: str) -> dict:
        """Seconds of the first call."""
        return {"first": self.seconds(task)}

    def seconds(self, task: str) -> float:
        """Of `train_steps` steps of training, or of the beginning of a chain, waited for."""
        start = time.perf_counter()
        if task == "training":
            for _ in range(self._options.train_steps):
                self._training_step()
        else:
            self._sample(task)
        self._wait()
        return time.perf_counter() - start

    def memory(self) -> dict:
        """Peak MiB of the process, and on the accelerator if there is one."""
        there = {"device": torch.cuda.max_memory_allocated() / 2**20} if self._device == "cuda" else {}
        return {"host": host_memory()} | there

    @torch.inference_mode()
    def rate(self) -> float:
        """`best_rate` of a product of matrices, in the type that is measured."""
        dtype = getattr(torch, self._options.dtype)

        def multiply(n):
            left, right = torch.randn(2, n, n, device=self._device, dtype=dtype)

            def run():
                left @ right
                self._wait()

            return run

        return best_rate(multiply, self._device)

    def _training_step(self):
        x0 = self._channels_last(self._images)
        if x0.dtype == torch.uint8:
            x0 = x0.float() / 127.5 - 1
        noise = torch.randn_like(x0)
        t = torch.randint(TABLE, (len(x0),), device=self._device)
        told = self._told()
        if told and self._withheld:
            nothing = torch.rand(len(x0), device=self._device) < self._withheld
            told = (told[0].masked_fill(nothing, self._model.config.num_embeds_ada_norm),)
        with self._precision():
            output = self._apply(self._schedulers["ancestral"].add_noise(x0, noise, t), t, *told).sample
        loss = torch.nn.functional.mse_loss(output.float(), noise)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._train["clip_norm"], foreach=True)
        self._optimizer.step()
        self._average.update_parameters(self._model)

    @torch.inference_mode()
    def _sample(self, task):
        scheduler, told = self._schedulers[task], self._told()
        scheduler.set_timesteps(CHAINS[task].steps)
        x = self._channels_last(torch.randn(self._shape, device=self._device)) * scheduler.init_noise_sigma
        for t in scheduler.timesteps[: evaluations(task, self._options.sampling_steps)]:
            with self._precision():
                each = t.to(self._device).expand(len(x))
                output = self._apply_average(scheduler.scale_model_input(x, t), each, *told).sample
            x = scheduler.step(output.float(), t, x, **self._step_options.get(task, {})).prev_sample
        x.cpu()

    def _told(self):
        return () if self._labels is None else (self._labels.to(self._device),)

    def _precision(self):
        bfloat16 = self._options.dtype == "bfloat16"
        return torch.autocast(self._device, torch.bfloat16) if bfloat16 else nullcontext()

    def _channels_last(self, x):
        return x.to(self._device).contiguous(memory_format=torch.channels_last)

    def _wait(self):
        if self._device == "cuda":
            torch.cuda.synchronize()


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


def transformer(size, channels, patch, features, layers, heads, classes, out_channels=None, **_):
    """diffusers' DiT with the wiring of ours; the class is withheld by who calls it."""
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=features // heads,
        in_channels=channels,
        out_channels=out_channels or channels,
        num_layers=layers,
        sample_size=size,
        patch_size=patch,
        num_embeds_ada_norm=classes,
    )
    # Theirs repeats the embeddings in every block; one module here, which it still evaluates as often.
    first, *others = model.transformer_blocks
    first.norm1.emb.class_embedder.dropout_prob = 0.0
    for block in others:
        block.norm1.emb = first.norm1.emb
    return model


def tf32() -> str:
    """What torch is set to do with float32 on a GPU."""
    precision, allowed = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    return f"TF32 (float32_matmul_precision {precision}, cudnn.allow_tf32 {allowed})"


def _use_well(device):
    torch.set_num_threads(cores())
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, JAX's own default
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
