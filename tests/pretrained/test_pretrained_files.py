"""Folders and the hub: which files are taken, and what is said when they are not there."""

import json
import os
import shutil
import sys
import types

import numpy as np
import pytest
from crafted import dictionary, storage, tensor, zipped

from diffusion_jax.core.errors import InputError
from diffusion_jax.pipelines.index import index, located
from diffusion_jax.pretrained.formats import files, safetensors_file


def save(path, **arrays):
    """A file of safetensors, or of torch.save with one tensor of floats, with zeros or the given value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        arrays = {name: np.full(2, value, np.float32) for name, value in arrays.items()}
        safetensors_file.write(path, {n: (a.dtype, a.shape) for n, a in arrays.items()}, iter(arrays.values()))
    else:
        ((name, value),) = arrays.items()
        path.write_bytes(
            zipped(dictionary({name: tensor(storage("0", 2), (2,))}), {"0": np.full(2, value, "<f4").tobytes()})
        )


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def values(weights):
    return {name: float(np.asarray(array)[0]) for name, array in weights.items()}


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.pt", "a.pth", "a.ckpt"])
def test_the_ending_says_how_to_read(tmp_path, name):
    save(tmp_path / name, w=3)
    assert values(files.weights(tmp_path / name)) == {"w": 3}


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a.onnx: weights are read from files named"):
        files.weights(tmp_path / "a.onnx")


def test_a_key_of_a_file_of_torch(tmp_path):
    value = dictionary({"ema": dictionary({"w": tensor(storage("0", 1), (1,))})})
    (tmp_path / "a.pt").write_bytes(zipped(value, {"0": np.ones(1, "<f4").tobytes()}))
    assert values(files.weights(tmp_path / "a.pt", key="ema")) == {"w": 1}


# ---- Folders.


@pytest.mark.parametrize("at", ["", "unet", "transformer", "controlnet"])
@pytest.mark.parametrize("scheduler", ["", "scheduler"])
def test_a_pipeline(tmp_path, at, scheduler):
    write_json(tmp_path / "model_index.json", {"unet": []})
    write_json(tmp_path / at / "config.json", {"channels": 3})
    write_json(tmp_path / scheduler / "scheduler_config.json", {"steps": 1000})
    save(tmp_path / at / "diffusion_pytorch_model.safetensors", w=1)
    save(tmp_path / at / "diffusion_pytorch_model.bin", w=2)  # the other is taken where both are
    config, weights, found = files.component(tmp_path)
    assert (config, values(weights), found) == ({"channels": 3}, {"w": 1}, {"steps": 1000})


def test_a_models_own_folder(tmp_path):
    write_json(tmp_path / "unet" / "config.json", {"channels": 3})
    save(tmp_path / "unet" / "diffusion_pytorch_model.bin", w=2)
    assert files.component(tmp_path / "unet").scheduler is None
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {"steps": 1000})
    config, weights, scheduler = files.component(str(tmp_path / "unet"))
    assert (config, values(weights), scheduler) == ({"channels": 3}, {"w": 2}, {"steps": 1000})


@pytest.mark.parametrize("at", ["unet_ema", "checkpoint-500/unet_ema"])
def test_an_average_beside_its_pipeline(tmp_path, at):
    write_json(tmp_path / at / "config.json", {"decay": 0.9999})
    save(tmp_path / at / "diffusion_pytorch_model.safetensors", w=2)
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {"steps": 1000})
    assert files.component(tmp_path / at).scheduler == {"steps": 1000}


def test_names_of_wrapped_modules(tmp_path):
    wrapped = {"module._orig_mod.a.weight": 1, "module.b._fsdp_wrapped_module.weight": 2}
    save(tmp_path / "a.safetensors", **wrapped)
    assert values(files.weights(tmp_path / "a.safetensors")) == {"a.weight": 1, "b.weight": 2}
    save(tmp_path / "a.safetensors", **{"module.a": 1, "b": 2})
    assert values(files.weights(tmp_path / "a.safetensors")) == {"module.a": 1, "b": 2}  # not all are wrapped
    save(tmp_path / "a.safetensors", **{"_orig_mod.a": 1, "a": 2})
    with pytest.raises(InputError, match="'a' is in the weights twice"):
        files.weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", [".safetensors", ".bin"])
@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_the_names_of_transformers(tmp_path, kind, variant):
    stem = {".safetensors": "model", ".bin": "pytorch_model"}[kind]
    write_json(tmp_path / "text_encoder" / "config.json", {"channels": 3})
    save(tmp_path / "text_encoder" / f"{stem}{variant}{kind}", w=2)
    found = files.component(tmp_path, variant, folders=("text_encoder", ""))
    assert (found.config, values(found.weights)) == ({"channels": 3}, {"w": 2})
    assert values(files.component(tmp_path / "text_encoder", variant, folders=("other", "")).weights) == {"w": 2}
    save(tmp_path / "text_encoder" / f"model{variant}.safetensors", w=3)  # which is taken where both are
    assert values(files.component(tmp_path, variant, folders=("text_encoder",)).weights) == {"w": 3}


@pytest.mark.parametrize("ending", [".fp16.safetensors", ".fp16.bin"])
def test_a_variant(tmp_path, ending):
    write_json(tmp_path / "config.json", {})
    save(tmp_path / "diffusion_pytorch_model.safetensors", w=1)
    with pytest.raises(InputError, match=r"no diffusion_pytorch_model.fp16.safetensors or .bin; it has diffusion_py"):
        files.component(tmp_path, variant="fp16")
    save(tmp_path / f"diffusion_pytorch_model{ending}", w=2)
    assert values(files.component(tmp_path, variant="fp16").weights) == {"w": 2}
    assert values(files.component(tmp_path, variant=".fp16").weights) == {"w": 2}
    with pytest.raises(InputError, match="such as fp16, not '/fp16'"):
        files.component(tmp_path, variant="/fp16")
    assert values(files.component(tmp_path).weights) == {"w": 1}


SHARDS = {
    "weight_map": {
        "b": "diffusion_pytorch_model-00002-of-00002.safetensors",
        "a": "diffusion_pytorch_model-00001-of-00002.safetensors",
    }
}


@pytest.mark.parametrize("kind", [".safetensors", ".bin"])
@pytest.mark.parametrize(
    ("name", "variant"), [("{}.index.json", ""), ("{}.index.fp16.json", "fp16"), (".fp16{}.index.json", "fp16")]
)
@pytest.mark.parametrize("whose", [0, 1])
def test_parts(tmp_path, name, variant, kind, whose):
    write_json(tmp_path / "config.json", {})
    shards = {at: file.replace(".safetensors", kind) for at, file in SHARDS["weight_map"].items()}
    write_json(tmp_path / f"{files.STEMS[kind][whose]}{name.format(kind)}", {"weight_map": shards})
    save(tmp_path / shards["a"], a=1)
    save(tmp_path / shards["b"], b=2)
    weights = files.component(tmp_path, variant).weights
    assert list(weights) == ["b", "a"]
    assert values(weights) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ({}, "no weight_map"),
        ({"weight_map": ["a"]}, "no weight_map"),
        ({"weight_map": {"a": 3}}, "no weight_map"),
        ({"weight_map": {"a": "../secret.safetensors"}}, "points to '../secret.safetensors'"),
        ({"weight_map": {"a": "/secret.safetensors"}}, "points to"),
        ({"weight_map": {"a": "..\\secret.safetensors"}}, "points to"),
        ({"weight_map": {"a": "inner/secret.safetensors"}}, "points to"),
        ({"weight_map": {"a": "part.pth"}}, "points to"),
        ({"weight_map": {"a": "none.safetensors"}}, "cannot read"),
        ({"weight_map": {"other": "part.safetensors"}}, "'other' is not in part.safetensors"),
    ],
)
def test_parts_that_are_missing_or_outside_are_refused(tmp_path, shards, message):
    folder = tmp_path / "model"
    for path in (tmp_path / "secret", folder / "inner" / "secret", folder / "part"):
        save(path.with_suffix(".safetensors"), a=1)
    save(folder / "part.pth", a=1)
    write_json(folder / "index.json", shards)
    with pytest.raises(InputError, match=message):
        files.weights(folder / "index.json")


def test_folders_without_a_model_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no config.json, nor do unet/, transformer/, controlnet/ in it"):
        files.component(tmp_path)
    write_json(tmp_path / "config.json", {})
    with pytest.raises(InputError, match="it has no weights"):
        files.component(tmp_path)
    save(tmp_path / "weights.safetensors", w=1)
    with pytest.raises(InputError, match=r"it has weights.safetensors"):
        files.component(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "holds a list"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": ' + b"1" * 4301 + b"}", "is not JSON"),
        (b'{"a": 1, "a": 2}', "a name comes twice"),
        (b'{"a": [' + b"[]," * 2**19 + b"[]]}", "has 1572875 bytes; such a file has at most 1048576"),
    ],
    ids=["list", "no end", "no text", "deep", "digits", "twice", "long"],
)
def test_json_that_is_no_object_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        files.json_object(tmp_path / "config.json")


@pytest.mark.parametrize("ending", [".json", ".safetensors", ".pt"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, ending):
    folder, pipe, endless = (tmp_path / f"{name}{ending}" for name in ("folder", "pipe", "endless"))
    folder.mkdir()
    os.mkfifo(pipe)
    endless.symlink_to("/dev/zero")
    for path in (folder, pipe, endless):
        with pytest.raises(InputError, match="cannot read"):
            files.weights(path)


# ---- The hub, of which only our side is tested: `snapshot_download` is replaced.


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one repository, and the calls it got."""
    import fnmatch

    repository, cache, calls = tmp_path / "hub", tmp_path / "cache", []
    repository.mkdir()

    def snapshot_download(name, revision, allow_patterns):
        calls.append((name, revision))
        if name != "google/model":
            raise FileNotFoundError(f"404: {name}\nand more lines")
        for path in repository.rglob("*.*"):
            relative = str(path.relative_to(repository))
            if any(fnmatch.fnmatch(relative, pattern) for pattern in allow_patterns):
                (cache / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, cache / relative)
        return str(cache)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    return repository, cache, calls


def fill(repository, ending, at="unet"):
    write_json(repository / at / "config.json", {"channels": 3})
    write_json(repository / "scheduler" / "scheduler_config.json", {"steps": 1000})
    save(repository / at / f"diffusion_pytorch_model{ending}", w=1)
    save(repository / "vae" / f"diffusion_pytorch_model{ending}", w=2)
    save(repository / f"v1-5-pruned{ending}", w=3)


def downloaded(cache):
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*.*") if path.suffix != ".json")


@pytest.mark.parametrize("at", ["", "unet"])
@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_a_model_of_the_hub(hub, ending, at):
    repository, cache, calls = hub
    fill(repository, ending, at)
    if ending == ".safetensors":
        save(repository / at / "diffusion_pytorch_model.bin", w=4)
        save(repository / at / "diffusion_pytorch_model.fp16.safetensors", w=5)
    config, weights, scheduler = files.component("google/model", revision="main")
    assert (config, values(weights), scheduler) == ({"channels": 3}, {"w": 1}, {"steps": 1000})
    assert set(calls) == {("google/model", "main")}
    # Other weights of the pipeline, which may be large, are left there.
    assert downloaded(cache) == [f"{at}/diffusion_pytorch_model{ending}".lstrip("/")]


def test_a_first_stage_of_the_hub(hub):
    """Of a pipeline its own folder alone; None where there is none."""
    repository, cache, _ = hub
    fill(repository, ".safetensors")
    assert files.component_if("google/model", folders=("vae", "vqvae")) is None
    write_json(repository / "vae" / "config.json", {"channels": 4})
    shutil.rmtree(cache)
    found = files.component_if("google/model", folders=("vae", "vqvae"))
    assert found is not None
    assert (found.config, values(found.weights)) == ({"channels": 4}, {"w": 2})
    assert downloaded(cache) == ["vae/diffusion_pytorch_model.safetensors"]


def test_parts_from_the_hub(hub):
    repository, _, _ = hub
    write_json(repository / "transformer" / "config.json", {})
    write_json(repository / "transformer" / "diffusion_pytorch_model.safetensors.index.json", SHARDS)
    for name, file in SHARDS["weight_map"].items():
        save(repository / "transformer" / file, **{name: 1})
    assert values(files.component("google/model").weights) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("variant", "index", "part"),
    [
        ("", "model.safetensors.index.json", "model-00001-of-00002.safetensors"),
        ("fp16", "model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"),
        ("fp16", "pytorch_model.bin.index.fp16.json", "pytorch_model.fp16-00001-of-00002.bin"),
    ],
)
def test_an_encoder_of_the_hub(hub, variant, index, part):
    """Of parts those that the index names: not another variant's, and not .bin where there is .safetensors."""
    repository, cache, _ = hub
    at = repository / "text_encoder"
    write_json(at / "config.json", {"channels": 5})
    write_json(at / index, {"weight_map": {"w": part}})
    names = {part, "model.fp32-00001-of-00002.safetensors", "pytorch_model-00001-of-00002.bin", "flax_model.bin"}
    for name in names:
        save(at / name, w=1)
    fill(repository, ".safetensors")
    found = files.component("google/model", variant, folders=("text_encoder", ""))
    assert (found.config, values(found.weights)) == ({"channels": 5}, {"w": 1})
    assert downloaded(cache) == [f"text_encoder/{part}"]


def test_an_encoders_own_repository(hub):
    repository, cache, _ = hub
    write_json(repository / "config.json", {"channels": 5})
    for name in ("pytorch_model.bin", "tf_model.bin"):
        save(repository / name, w=1)
    assert values(files.component("google/model", folders=("text_encoder", "")).weights) == {"w": 1}
    assert downloaded(cache) == ["pytorch_model.bin"]


def test_a_whole_pipeline_of_the_hub(hub):
    """Each part with one set of weights, of safetensors where it has them; what is not used stays there."""
    repository, cache, calls = hub
    parts = {name: ["transformers", "Any"] for name in ("unet", "text_encoder", "vae", "tokenizer", "safety_checker")}
    write_json(repository / "model_index.json", {"_class_name": "Any", "scheduler": ["diffusers", "Any"], **parts})
    fill(repository, ".safetensors")
    write_json(repository / "vae" / "config.json", {})
    for part, stem in (("text_encoder", "pytorch_model"), ("safety_checker", "pytorch_model")):
        write_json(repository / part / "config.json", {})
        save(repository / part / f"{stem}.bin", w=1)
    for file in ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors"):
        save(repository / file, w=1)
    for file in (
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/model.onnx",
        "text_encoder/flax_model.msgpack",
    ):
        (repository / file).parent.mkdir(exist_ok=True)
        (repository / file).write_text("{}")
    root = located("google/model", revision="main")
    assert index(root, "google/model").name == "google/model"
    assert (root / "tokenizer" / "vocab.json").is_file()
    assert (root / "scheduler" / "scheduler_config.json").is_file()
    vae, encoder = "vae/diffusion_pytorch_model.safetensors", "text_encoder/pytorch_model.bin"
    assert downloaded(cache) == [encoder, "tokenizer/merges.txt", "unet/diffusion_pytorch_model.safetensors", vae]
    shutil.rmtree(cache)
    located("google/model", "fp16")
    # Of what has no such variant the usual weights come.
    unet = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert downloaded(cache) == [encoder, "tokenizer/merges.txt", unet, vae]
    with pytest.raises(InputError, match="google/model has no weights of the variant fp61"):
        located("google/model", "fp61")
    assert {revision for _, revision in calls} == {"main", None}


def test_what_the_hub_says_is_told_in_one_line(hub):
    with pytest.raises(InputError, match=r"^cannot download google/none .*FileNotFoundError: 404: google/none\)$"):
        files.component("google/none")


def test_without_the_hubs_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"no folder google/model; .* pip install 'diffusion_jax\[hub\]'"):
        files.component("google/model")


@pytest.mark.parametrize("name", ["model", "a/b/c", "../model", "./model", "/model", "a/", "google/..", "a\\b/c"])
def test_names_that_are_neither_folder_nor_of_the_hub(hub, name):
    with pytest.raises(InputError, match="neither a folder nor a name on the hub"):
        files.component(name)
    assert not hub[2]
