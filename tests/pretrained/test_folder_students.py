"""Students of published folders: trained from the command line, exported, and drawn alike here and by diffusers."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from published_tiny import make

from diffusion_jax import config as configs
from diffusion_jax import export, pretrained, train
from diffusion_jax.app import cli, resolve
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.methods import folders, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency, teachers
from diffusion_jax.methods.few_step import folders as students
from diffusion_jax.pipelines import published
from diffusion_jax.pretrained.schedulers import scheduler
from diffusion_jax.training.experiment import SampleRequest

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

CONFIGS = Path(__file__).parents[2] / "configs"
SHORT = ["data.shape=(8,8,3)", "train.batch_size=8", "train.steps=2", "train.warmup_steps=0", "log.sample_every=0"]
KEYS, STEPS = jax.random.split(jax.random.key(0), 2), 3
# A config, the folder of its teacher, and the chain and the scheduler of its export.
STUDENTS = {
    "lcm_folder": ("flat", "multistep", "LCMScheduler"),
    "consistency_folder": ("unlabelled", "published", "CMStochasticIterativeScheduler"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight small images, tiny folders, and a run and its export of each config."""
    root = tmp_path_factory.mktemp("students")
    (root / "images").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
    for name in ("flat", "unlabelled", "consistency"):
        make(root, name)
    for name, (teacher, *_) in STUDENTS.items():
        values = [*SHORT, f"data.dir={root / 'images'}", f"distill.teacher={root / teacher}"]
        options = [f"--config.{value}" for value in values]
        cli.run(train.main, ["--config", str(CONFIGS / f"{name}.py"), "--workdir", str(root / name), *options])
        cli.run(export.main, ["--workdir", str(root / name), "--to", str(root / "exported" / name)])
    return root


def drawn(samplers, params, sampler):
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(samplers[sampler](SampleRequest(2, steps=STEPS)))(params, KEYS))


def of_run(root, name):
    experiment = resolve.experiment(root / name)
    return experiment.sampling.samplers, resolve.parameters(root / name, experiment)[1]


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_is_exported_and_drawn_alike(root, name):
    teacher, chain, kind = STUDENTS[name]
    again = pretrained.load(root / "exported" / name)
    assert again.scheduler["_class_name"] == kind
    samplers, averaged = of_run(root, name)
    jax.tree.map(np.testing.assert_array_equal, again.params, averaged)
    start = pretrained.load(root / teacher).params
    assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (averaged, start)), strict=True)) > 0
    model = published.diffusers(str(root / "exported" / name))
    ours = drawn(samplers, averaged, chain)
    np.testing.assert_allclose(drawn(model.samplers, again.params, "published"), ours, atol=2e-5)


@pytest.mark.parametrize("name", STUDENTS)
def test_diffusers_draws_the_same(root, name, monkeypatch):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
    diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")
    from diffusers.schedulers import scheduling_consistency_models, scheduling_lcm

    _, chain, kind = STUDENTS[name]
    folder, keys = root / "exported" / name, iter(rng.each(KEYS, step) for step in range(STEPS + 2))

    def noise(*shape, **how):
        x = jax.vmap(lambda key: rng.flat(jax.random.normal, key, (8, 8, 3)))(next(keys))
        return torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())

    for module in (scheduling_consistency_models, scheduling_lcm):
        monkeypatch.setattr(module, "randn_tensor", noise)
    network = diffusers.UNet2DModel.from_pretrained(folder).eval()
    theirs = getattr(diffusers, kind).from_pretrained(folder)
    theirs.set_timesteps(STEPS)
    x = noise() * theirs.init_noise_sigma
    with torch.no_grad():
        for t in theirs.timesteps:
            x = theirs.step(network(theirs.scale_model_input(x, t), t).sample, t, x).prev_sample
    found = drawn(*of_run(root, name), chain).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, x, atol=1e-4)
    assert found.std() > 0.1


def test_a_network_of_labels_starts_as_it_is_published(root):
    """Training and easy tuning, of labelled data; with EDM's own scheduler there is nothing to export to."""
    data, start = pixels.data(small("consistency_folder"), None), pretrained.load(root / "consistency").params
    config = consistency.with_target(folders.without_network(pixels.default_config()))
    model = folders.opened(str(root / "consistency"), data, "--config.distill.teacher")
    parts = students.in_levels(model)
    for method, low in (
        (consistency.improved(growth=consistency.stages.doubling(10, 20, 100), **parts), 0.002),
        (consistency.trained(growth=consistency.stages.growing(2, 5, 100), **parts), 0.002),
        (consistency.tuned(config, each=1, **parts), 0.003),
    ):
        jax.tree.map(np.testing.assert_array_equal, method.start(None), start)
        assert set(method.data.example) == {"image", "label"}
        made = students.exported(method, model, low)
        assert compose(config, made).sampling.samplers.keys() == {"multistep", "published"}
        made.export(start, root / "again" / str(low) / str(len(method.averages)))
    written = pretrained.load(root / "again" / "0.003" / "0").scheduler
    assert scheduler.sampling(written).grid(1).tolist() == [1, 0]
    assert written["sigma_min"] == 0.003
    edm = folders.opened(str(make(root / "edm", "consistency", _class_name="EDMEulerScheduler")), data, "")
    told = students.in_levels(edm)["time"]
    np.testing.assert_allclose(told(np.array([80.0])), np.log(80.0) / 4, rtol=1e-6)
    assert students.exported(method, edm).export is None


def small(name, **values):
    config = configs.load(CONFIGS / f"{name}.py").get_config()
    config.data.shape = (8, 8, 3)
    config.update_from_flattened_dict(values)
    return config


REFUSED = {  # config: tiny folder, changes of its scheduler, values, what is said
    "no folder": (
        "lcm_folder",
        None,
        {},
        {},
        "no model to start from; give its folder: --config.distill.teacher=DIR",
    ),
    "none to start from": ("consistency_training_folder", None, {}, {}, "--config.start.folder=DIR"),
    "no scheduler": ("lcm_folder", "controlnet", {}, {}, "has no scheduler_config.json, which says on what noise"),
    "levels for a table": ("lcm_folder", "unlabelled", {}, {}, "no scheduler_config.json with a table of betas"),
    "a table for levels": ("consistency_folder", "ddpm", {}, {}, "'DDPMScheduler' tells no noise levels as EDM's do"),
    "a text": ("lcm_folder", "text", {}, {}, "is told a condition that is no label"),
    "channels": ("lcm_folder", "ddpm", {}, {"data.shape": (8, 8, 1)}, "has 3 channels; give data.shape as many"),
    "a student": ("lcm_folder", "ddpm", {"_class_name": "LCMScheduler"}, {}, "a latent consistency model already"),
    "other levels": ("consistency_folder", "unlabelled", {"sigma_max": 40.0}, {}, "to sigma_max = 40; students"),
    "v of EDM": (
        "consistency_folder",
        "unlabelled",
        {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"},
        {},
        "prediction_type = 'v_prediction' is not supported",
    ),
    "too many entries": ("lcm_folder", "ddpm", {"num_train_timesteps": 40}, {}, "of a table of 40 entries"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_cannot_be_learned_from_is_one_line(tmp_path, case):
    name, folder, scheduler_, values, said = REFUSED[case]
    config = small(name, **values)
    if folder:
        key = "start" if "start" in config else "distill"
        config[key].update({"folder" if key == "start" else "teacher": str(make(tmp_path, folder, **scheduler_))})
    with pytest.raises(InputError, match=f"^[^\n]*{said}[^\n]*$"):
        configs.load(CONFIGS / f"{name}.py").build(config)


def test_what_a_teacher_says_and_bounds_is_exported(tmp_path):
    """v on the cosine table, which is known to its end, by a scheduler that bounds nothing."""
    about = {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100}
    folder = make(tmp_path, "ddpm", _class_name="PNDMScheduler", skip_prk_steps=True, **about)
    config = small("lcm_folder", **{"distill.teacher": str(folder), "distill.original": 20})
    method = configs.load(CONFIGS / "lcm_folder.py").build(config).method
    method.export(method.start(None), tmp_path / "exported")
    written = pretrained.load(tmp_path / "exported").scheduler
    assert written | about | {"original_inference_steps": 20, "clip_sample": False, "thresholding": False} == written
    how, t = scheduler.sampling(written), np.arange(1, 101) / 100
    np.testing.assert_allclose(how.schedule.alpha(t), method.schedule.alpha(t))
    for steps in (1, 3, 20):
        np.testing.assert_array_equal(how.grid(steps), method.chains["multistep"](steps).times)


def test_what_a_run_cannot_do_is_one_line(tmp_path):
    config = small("lcm_folder")
    config.distill.teacher = str(tmp_path / "moved")
    with pytest.raises(
        InputError, match=r"moved is neither a folder nor a name on the hub .* a run needs the folder"
    ):
        configs.load(CONFIGS / "lcm_folder.py").build(config)
    # The cosine table: distilled below its last entry, where an LCMScheduler would start.
    config.distill.teacher = str(make(tmp_path, "ddpm", beta_schedule="squaredcos_cap_v2"))
    method = configs.load(CONFIGS / "lcm_folder.py").build(config).method
    with pytest.raises(InputError, match="ends with too little of the data, and an LCMScheduler starts at its end"):
        method.export(method.start(None), tmp_path / "never")
    with pytest.raises(InputError, match=r"must lie in 1, \.\.\., 49, not 50"):
        method.chains["multistep"](50)
    assert method.held()[teachers.NAME] is method.start(None)  # read once
