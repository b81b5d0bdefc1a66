"""Published weights as parameters of our networks, without PyTorch, and back: `load` does it all.

`files` finds and reads them (`torch_file`, `safetensors_file`); `entries` turns them into parameters by a table of
names (`diffusers_names`, `openai_names`, `dit`); and `unet2d`, `unet2d_condition`, `dit_config`,
`openai_flags` and `scheduler` read what they are.
"""

from diffusion_jax.pretrained.loading import Pretrained, load

__all__ = ["Pretrained", "load"]
