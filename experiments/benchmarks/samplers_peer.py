"""The peer of the samplers' benchmark: diffusers' schedulers, each in the loop of its pipeline."""

import functools
import time
import warnings

import diffusers
import torch
from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler

from experiments.benchmarks import peer

TABLE = 1000


def make(options, ours):
    """`Peer`, or None where torch sees no such device as ours is."""
    device = {"cpu": "cpu", "gpu": "cuda"}.get(ours["platform"])
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return None
    warnings.filterwarnings("ignore", category=FutureWarning)  # of schedulers that are called old
    return Peer(options, ours, device)


class Peer:
    """What the parent may ask of this side. The network is set up as `peer` does: channels last, all cores."""

    def __init__(self, options, ours, device):
        peer._use_well(device)
        self._steps, self._device, self._ready = options.steps, device, {}
        size, channels = ours["shape"][0], ours["shape"][-1]
        model = peer.unet(size, channels, **ours["model"]).to(device, memory_format=torch.channels_last).eval()
        self._network = lambda x, t: model(x, t).sample
        self._shape = (options.batch, channels, size, size)
        self._about = {
            "name": "diffusers",
            "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}, "
            f"{torch.get_num_threads()} threads",
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "parameters": sum(p.numel() for p in model.parameters()),
        }

    def about(self) -> dict:
        return self._about

    @torch.inference_mode()
    def prepare(self, name: str) -> dict:
        """Make the loop of `name`, and run it once. Its network evaluations, and whether the images are finite."""
        self._ready[name] = LOOPS[name]
        count = 0

        def counted(x, t):
            nonlocal count
            count += 1
            return self._network(x, t)

        images = self._run(name, counted)[1]
        return {"evaluations": count, "finite": bool(images.isfinite().all())}

    @torch.inference_mode()
    def seconds(self, name: str) -> float:
        """Of one whole chain; the scheduler's tables are made before."""
        return self._run(name, self._network)[0]

    def _run(self, name, network):
        loop = self._ready[name](self._steps, self._device)
        noise = torch.randn(self._shape, device=self._device).contiguous(memory_format=torch.channels_last)
        if self._device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        images = loop(network, noise).cpu()  # which waits
        return time.perf_counter() - start, images


# ---- Loops: `(steps, device) -> ((network, noise) -> images)`.


def alone(steps, device):
    """No scheduler: the network, again and again."""
    times = torch.arange(steps, device=device)

    def loop(network, x):
        for t in times:
            x = network(x, t)
        return x

    return loop


def usual(scheduler_class, spacing="trailing", step_options=None, **options):
    """The loop that nearly all of the pipelines have."""

    def make_loop(steps, device):
        scheduler = scheduler_class(TABLE, timestep_spacing=spacing, **options)
        scheduler.set_timesteps(steps, device=device)

        def loop(network, x):
            x = x * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                output = network(scheduler.scale_model_input(x, t), t)
                x = scheduler.step(output, t, x, **(step_options or {})).prev_sample
            return x

        return loop

    return make_loop


def karras_ve(steps, device):
    """KarrasVePipeline's: Algorithm 2 of Karras et al. 2022."""
    scheduler = KarrasVeScheduler(s_churn=40.0, s_min=0.05, s_max=50.0, s_noise=1.003)
    scheduler.set_timesteps(steps, device=device)

    def loop(network, x):
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            sigma = scheduler.schedule[t]
            sigma_prev = scheduler.schedule[t - 1] if t > 0 else 0
            x_hat, sigma_hat = scheduler.add_noise_to_input(x, sigma)
            output = (sigma_hat / 2) * network((x_hat + 1) / 2, sigma_hat / 2)
            step = scheduler.step(output, sigma_hat, sigma_prev, x_hat)
            if sigma_prev != 0:
                output = (sigma_prev / 2) * network((step.prev_sample + 1) / 2, sigma_prev / 2)
                step = scheduler.step_correct(output, sigma_hat, sigma_prev, x_hat, step.prev_sample, step.derivative)
            x = step.prev_sample
        return x

    return loop


def score_sde_ve(steps, device, corrections=0):
    """ScoreSdeVePipeline's: reverse diffusion, after `corrections` steps of Langevin dynamics a level."""
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=50.0)
    scheduler.set_timesteps(steps, device=device)
    scheduler.set_sigmas(steps)

    def loop(network, x):
        x = x * scheduler.init_noise_sigma
        for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=True):
            sigma = sigma * torch.ones(len(x), device=device)
            for _ in range(corrections):
                x = scheduler.step_correct(network(x, sigma), x).prev_sample
            step = scheduler.step_pred(network(x, sigma), t, x)
            x = step.prev_sample
        return step.prev_sample_mean

    return loop


LOOPS = {
    "network": alone,
    "ancestral": usual(diffusers.DDPMScheduler, variance_type="fixed_large"),
    "ddim": usual(diffusers.DDIMScheduler, "leading", {"use_clipped_model_output": True}),
    "euler": usual(diffusers.EulerDiscreteScheduler),
    "heun": usual(diffusers.HeunDiscreteScheduler),
    "edm churn": karras_ve,
    "dpmpp_2m": usual(diffusers.DPMSolverMultistepScheduler, algorithm_type="dpmsolver++"),
    "dpmpp_2m_sde": usual(diffusers.DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++"),
    "euler_maruyama": score_sde_ve,
    "predictor_corrector": functools.partial(score_sde_ve, corrections=1),
}
