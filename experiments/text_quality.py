"""How well does a model of characters know its language? Bits a character of held-out text, beside controls.

  python -m diffusion_jax.train --config configs/text.py --workdir runs/text
  python -m experiments.text_quality --workdir runs/text

  masked diffusion   its bound of -log2 p, averaged over the held-out tenth and over times; lower is better
  order 0, 1, 2      -log2 p of a character given none, one or two before it, counted on the training text
                     (order n is mixed with order n - 1, Witten and Bell's way, so that nothing is impossible)
  shuffled           the model's bound on the same text with the characters of every piece in random order: a model
                     that has only learned how often characters occur would not notice

The bound pays for the order in which characters are revealed, so it is not quite comparable with a model that reads
from left to right; that it lies below order 1 shows that the model looks at neighbours on both sides.
"""

import collections
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffusion_jax.app import cli, resolve
from diffusion_jax.core import rng
from diffusion_jax.data import text
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.training import workdir

BATCH = 64


def main(arguments: list[str]):
    """The command `python -m experiments.text_quality`."""
    options = _parser().parse_args(arguments)
    module, config = workdir.open_existing(options.workdir, options.config)
    experiment = module.build(config)
    step, params = resolve.parameters(options.workdir, experiment)
    path, length = config.data.dir or None, config.data.length
    pieces = text.characters(path, length, "test")
    chosen = np.random.default_rng(options.seed).permutation(len(pieces))[: options.pieces]
    tokens = np.stack([pieces[i]["tokens"] for i in chosen])
    shuffled = np.random.default_rng(options.seed).permuted(tokens, axis=1)

    train = text.characters(path, 1, "train")
    stream = np.array([train[i]["tokens"][0] for i in range(len(train))])
    print(f"step {step}, {tokens.size:,} characters of held-out text, alphabet of {text.alphabet(path).size}")
    print(f"{'model':<28}{'bits a character':>18}")
    print(f"{'masked diffusion':<28}{bound(experiment, params, tokens, options):>12.3f}")
    for order, bits in enumerate(orders(stream, tokens, text.alphabet(path).size)):
        print(f"{f'order {order}':<28}{bits:>12.3f}")
    print(f"{'masked diffusion, shuffled':<28}{bound(experiment, params, shuffled, options):>12.3f}")


def bound(experiment, params, tokens, options) -> float:
    """The model's bound on `tokens` [N, L], bits a character; `options.times` passes at stratified times."""
    draw = time_sampling.stratified(time_sampling.uniform(first=1e-3)).draw
    root = jax.random.key(options.seed)
    num = len(tokens) // BATCH * BATCH

    @jax.jit
    def losses(batch, number):
        index = jnp.arange(BATCH)
        key = rng.stream(root, "times", number)
        t, _ = draw((), key, index, BATCH)
        keys = rng.per_example(rng.stream(root, "noise", number), index)
        return experiment.task.loss(keys, params, {"tokens": batch}, Context(t))[0].mean()

    values = []
    for number in tqdm(range(options.times * num // BATCH), unit="batch", dynamic_ncols=True, leave=False):
        start = number * BATCH % num
        values.append(losses(tokens[start : start + BATCH], number))
    return float(np.mean(jax.device_get(values)) / np.log(2))


def orders(stream, tokens, vocab: int) -> list[float]:
    """-log2 p of `tokens` [N, L] given 0, 1 and 2 characters before, counted on `stream`; bits a character.

    Every model is judged on the characters from the third on, which have two before them.
    """
    results, lower = [], lambda context, token: 1 / vocab
    for order in range(3):
        counts = collections.defaultdict(collections.Counter)
        for i in range(order, len(stream)):
            counts[tuple(stream[i - order : i])][stream[i]] += 1

        def p(context, token, counts=counts, lower=lower, order=order):
            seen = counts[tuple(context[len(context) - order :])]
            kinds, total = len(seen), sum(seen.values())
            below = lower(context, token)
            return (seen[token] + kinds * below) / (total + kinds) if total else below

        logs = [np.log2(p(row[i - 2 : i], row[i])) for row in tokens for i in range(2, len(row))]
        results.append(float(-np.mean(logs)))
        lower = p
    return results


def _parser():
    parser = cli.parser("experiments.text_quality", __doc__)
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="a trained run of configs/text.py")
    add("--pieces", type=int, default=512, metavar="N", help="pieces of held-out text (%(default)s)")
    add("--times", type=int, default=8, metavar="N", help="passes over them, at other times (%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")
    return parser


if __name__ == "__main__":
    cli.run(main)
