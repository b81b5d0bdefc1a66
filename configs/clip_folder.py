"""CLIP at its paper's size, ViT-L/14 of 224x224 pixels, from captioned pictures of your own.

  python -m diffusion_jax.train --config configs/clip_folder.py --workdir runs/clip_folder \\
    --config.data.dir=PATH --config.clip.tokenizer=openai/clip-vit-large-patch14
  python -m diffusion_jax.export --workdir runs/clip_folder --to clip_folder

PATH is a folder of pictures of at least 224x224 with a text beside each, cat.jpg and cat.txt. Of a published CLIP
only the tokenizer is read, by the extra `text`. transformers' CLIPModel reads what is exported, and so do
unclip_decoder_folder and unclip_prior_folder (--config.clip.folder=clip_folder).

428 million parameters, batch 32,768, 390,625 updates: the paper's 32 epochs of 400 million pairs, on 256 V100s in 12
days. A batch is never computed in parts, so each device holds the whole of its share. Fewer pictures or devices want
a smaller model, such as ViT-B/32 (--config.vision.features=768 --config.vision.layers=12 --config.vision.heads=12
--config.text.features=512 --config.text.heads=8 --config.clip.embedding=512 --config.clip.patch=32), and a smaller
train.batch_size, with steps and decay_steps to match. Not trained with this code: it was run with small networks.

The paper was not at hand: its values (tables 18 to 20) stand here from memory. So do three choices. Texts have the 77
tokens of the published weights, where section 2.4 says 76. Gradients are not clipped and parameters not averaged, as
the paper speaks of neither. And what decays is what has two axes: tables of tokens and of positions do.
"""

from diffusion_jax.methods.text_to_image import clip


def get_config():
    return clip.config()


def build(config):
    return clip.experiment(config)
