"""What the commands of other projects call our options: OpenAI's, score_sde's, EDM's and diffusers' scripts'."""

from collections.abc import Iterable

OURS = {
    "model_path": "--pretrained",
    "num_samples": "--num",
    "num_images": "--num",
    "sample_size": "--num",
    "num_inference_steps": "--steps",
    "timestep_respacing": "--steps",
    "ddim_steps": "--steps",
    "ddim_eta": "--eta",
    "classifier_scale": "--guidance",
    "guidance_scale": "--guidance",
    "guidance_rescale": "--rescale",
    "cfg_scale": "--guidance",
    "scale": "--guidance",
    "classifier_path": "--classifier",
    "class_idx": "--label",
    "class": "--label",
    "seeds": "--seed",
    "outdir": "--out, or --workdir of training",
    "output_dir": "--out, or --workdir of training",
    "network": "--pretrained, or --workdir of a run",
    "data_dir": "--config.data.dir",
    "data": "--config.data.dir",
    "batch_size": "--batch, or --config.train.batch_size in training",
    "batch": "--config.train.batch_size",
    "train_batch_size": "--config.train.batch_size",
    "microbatch": "--config.train.accumulate",
    "gradient_accumulation_steps": "--config.train.accumulate",
    "lr": "--config.train.learning_rate",
    "learning_rate": "--config.train.learning_rate",
    "lr_warmup_steps": "--config.train.warmup_steps",
    "ema_rate": "--config.train.ema_decay",
    "ema": "--config.train.ema_decay",
    "max_train_steps": "--config.train.steps",
    "steps": "--config.train.steps",
    "save_interval": "--config.log.checkpoint_every",
    "checkpointing_steps": "--config.log.checkpoint_every",
    "log_interval": "--config.log.every",
    "resume_checkpoint": "--workdir of the run, which goes on by itself",
    "resume_from_checkpoint": "--workdir of the run, which goes on by itself",
    "diffusion_steps": "--config.diffusion.timesteps",
    "num_channels": "--config.model.channels",
    "num_res_blocks": "--config.model.blocks",
    "channel_mult": "--config.model.multipliers",
    "dropout": "--config.model.dropout",
}


def remedy(words: Iterable[str]) -> str:
    """What to give for unknown flags, "--lr is --config.train.learning_rate here; ", or "" for none of these."""
    names = [word.split("=")[0].lstrip("-").replace("-", "_") for word in words if word.startswith("-")]
    return "".join(f"--{name} is {OURS[name]} here; " for name in dict.fromkeys(names) if name in OURS)
