"""The swiss roll by the half turn that a point lies on, with v and classifier-free guidance.

  python -m diffusion_jax.train --config configs/swiss_roll_guided.py --workdir runs/swiss_roll_guided
  python -m diffusion_jax.sample --workdir runs/swiss_roll_guided --num 5000 --guidance 1 --film

`configs/swiss_roll_guided_distillation.py` distils it.

6000 steps, a minute of processor time. In 50 steps (`python -m experiments.tables.points --guidance G`, 5000 points,
one run) 98.6 % of the points lie on the half turn that they were told at guidance 1, and all at guidance 3. Without
`--label` each half turn is drawn in turn, so that a film shows them all.
"""

from diffusion_jax.data import toys
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import points
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import guided, progressive
from diffusion_jax.methods.guided import classifier_free
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES = toys.HALF_TURNS


def get_config():
    return points.small_config()


def build(config):
    data = guided.with_labels(points.data(toys.swiss_rolls), CLASSES)
    model = points.network(config, embed={"label": LabelEmbedding(CLASSES + 1)})
    teacher = progressive.teacher(config, data, model, points.BOUNDS)
    return compose(config, classifier_free(teacher, guidance.replacing(label=CLASSES)))
