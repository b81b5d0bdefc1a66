"""Makes diffusion_jax/evaluation/digits.safetensors, the bundled judge of digits, and prints its hash.

  python -m experiments.train_digits_judge --out diffusion_jax/evaluation/digits.safetensors

The classifier is that of `experiments.digits_quality`. Training it takes some seconds; on another machine its weights
come out a little different, and so would every figure: the file in the package is the one to compare by. After
writing another, put its hash into `diffusion_jax.evaluation.extractors`.
"""

import hashlib
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

from diffusion_jax.app import cli
from diffusion_jax.data import sources
from diffusion_jax.pretrained.formats import safetensors_file
from experiments import digits_quality


def main(arguments: list[str]):
    """The command `python -m experiments.train_digits_judge`."""
    parser = cli.parser("experiments.train_digits_judge", __doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file of safetensors to write")
    out = parser.parse_args(arguments).out
    source = sources.digits("train")
    examples = [source[i] for i in range(len(source))]
    pictures, labels = (np.stack([x[name] for x in examples]) for name in ("image", "label"))
    arrays = weights(digits_quality.classifier(pictures, labels))
    shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    safetensors_file.write(out, shapes, iter(arrays.values()))
    print(f"{out}: SHA-256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


def weights(network: MLPClassifier) -> dict[str, np.ndarray]:
    """ "0.kernel", "0.bias" and so on, float32, of a trained network."""
    layers = enumerate(zip(network.coefs_, network.intercepts_, strict=True))
    parts = {f"{i}.{name}": array for i, pair in layers for name, array in zip(("kernel", "bias"), pair, strict=True)}
    return {name: array.astype(np.float32) for name, array in parts.items()}


if __name__ == "__main__":
    cli.run(main)
