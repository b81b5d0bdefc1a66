"""TD-VAE on MNIST's digits that move, at the sizes of its paper.

  python -m diffusion_jax.train --config configs/tdvae_mnist.py --workdir runs/tdvae_mnist

60,000 digits through TFDS (12 MB; preparing them needs the extra `tfds`), 28x28, black and white; 20 frames, in
which a digit moves by a pixel a frame, left or right. 1.6M parameters. The sizes are the paper's as its
reimplementations have them: two dense layers of 784, an LSTM of 50, two layers of 8 numbers of a state, D blocks of
50, a decoder of 200 twice, jumps of 1 to 4, Adam at 5e-4, batches of 512. Two things differ: p_T and p_S are told the
length of the jump, and a digit is thresholded at a half and not at random. How many updates the paper makes we could
not find. Not yet trained with this code.
"""

from diffusion_jax.data import sequences, sources
from diffusion_jax.methods.autoencoders import td_vae
from diffusion_jax.methods.compose import with_dir


def get_config():
    return with_dir(td_vae.default_config())


def build(config):
    def source(split):
        return sequences.moving(sources.mnist(config.data.dir)(split), config.data.length)

    return td_vae.build_frames(config, td_vae.frames(config, source, (28, 28, 1)))
