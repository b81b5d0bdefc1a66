"""How good are samples? Metrics on the features of any extractor, in float64; extraction over all devices.

An extractor (`extractors`) looks at images, `streaming` runs it over many, and every metric is a function of arrays
of features, whoever made them: `frechet` (FID, sFID), `scores` (Inception Score, KID), `neighbours` (precision and
recall, density and coverage, memorising). `measures` has them all in one table. None of them sees everything, and
none may be compared between extractors or between different numbers of images.
"""

from diffusion_jax.evaluation.extractors import Extractor, digits, inception
from diffusion_jax.evaluation.frechet import Moments
from diffusion_jax.evaluation.measures import MEASURES, Measure
from diffusion_jax.evaluation.neighbours import density_coverage, memorisation, nearest, precision_recall
from diffusion_jax.evaluation.scores import inception_score, kernel_distance, kernel_distance_subsets
from diffusion_jax.evaluation.streaming import extract, moments, stream

__all__ = [
    "MEASURES",
    "Extractor",
    "Measure",
    "Moments",
    "density_coverage",
    "digits",
    "extract",
    "inception",
    "inception_score",
    "kernel_distance",
    "kernel_distance_subsets",
    "memorisation",
    "moments",
    "nearest",
    "precision_recall",
    "stream",
]
