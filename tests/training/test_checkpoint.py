import functools
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.training import manifest
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.state import TrainState, init_state

pytestmark = pytest.mark.slow

TIMES = time_sampling.loss_aware(num=5)  # its memory is saved too
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(0, 1e-3, 10)))


@functools.cache
def state_at(step: int) -> TrainState:
    def init(key):
        return {"a": {"kernel": jax.random.normal(key, (64, 32)), "bias": jnp.zeros(())}, "b": jnp.ones(3)}

    state = init_state(init, OPTIMIZER, TIMES, jax.random.key(step))
    return state._replace(step=jnp.asarray(step, jnp.int32))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints of the steps 10 and 20."""
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (10, 20):
            checkpoints.save(state_at(step), {"next_index": step})
    return tmp_path / "checkpoints"


def test_what_is_read_is_what_was_written(saved):
    with Checkpoints(saved) as checkpoints:
        state, position = checkpoints.restore_latest(state_at(0))
        step, ema = checkpoints.restore("ema", jax.eval_shape(lambda: state_at(0).ema), step=10)
    assert_same(state, state_at(20))
    assert position == {"next_index": 20}
    assert step == 10
    assert_same(ema, state_at(10).ema)


@pytest.mark.parametrize(("keep", "stay"), [(2, [3, 4]), (None, [1, 2, 3, 4])])
def test_only_the_newest_stay(tmp_path, keep, stay):
    with Checkpoints(tmp_path / "checkpoints", keep=keep) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(state_at(step), {})
        checkpoints.wait()
        assert checkpoints.steps() == stay
    # That others were removed is not forgotten when the newest is gone: it was there.
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    said = []
    with Checkpoints(tmp_path / "checkpoints", report=said.append) as checkpoints:
        assert checkpoints.restore_latest(state_at(0))[0].step == 3
    assert "4" in "".join(said)


def test_a_new_folder_has_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.restore_latest(state_at(0)) is None
        with pytest.raises(InputError, match="no checkpoint"):
            checkpoints.restore("ema", state_at(0).ema)


def damages(folder: Path):
    """Every way to spoil one file of a checkpoint: half of it, one byte of it, all of it; file by file."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    return itertools.product(files, ("truncate", "flip", "delete"))


def spoil(path: Path, how: str):
    content = path.read_bytes()
    middle = len(content) // 2
    if how == "delete":
        path.unlink()
    else:
        rest = b"" if how == "truncate" else bytes([content[middle] ^ 255]) + content[middle + 1 :]
        path.write_bytes(content[:middle] + rest)


def test_a_damaged_newest_checkpoint_is_noticed_whatever_was_damaged(saved):
    """Orbax reads some files that were altered without noticing: the checksums must make up for it.

    Each damage ends in one of two ways: the very state that was written, or the one before with a word about it.
    """
    copy, fell_back, intact = saved.with_name("copy"), 0, 0
    cases = [(path.relative_to(saved), how) for path, how in damages(saved / "20")]
    # The index files that Orbax never reads back are many and alike; one in five of all keeps this short.
    for path, how in cases[::5]:
        shutil.copytree(saved, copy / "checkpoints")
        shutil.copy(saved.with_name("checkpoints.json"), copy)
        spoil(copy / "checkpoints" / path, how)
        said = []
        with Checkpoints(copy / "checkpoints", report=said.append) as checkpoints:
            state, position = checkpoints.restore_latest(state_at(0))
        if int(state.step) == 20:
            assert_same(state, state_at(20))
            assert not said
            intact += 1
        else:
            assert_same(state, state_at(10))
            assert position == {"next_index": 10}
            assert "20" in said[0]
            assert "damaged" in said[0]
            assert "going on from step 10: 10 steps are made again" in said[0]
            assert (copy / "damaged" / "20").is_dir()
            fell_back += 1
        shutil.rmtree(copy)
    assert fell_back > 3
    assert intact + fell_back == len(cases[::5])


def test_a_flipped_byte_in_the_weights_is_noticed(saved):
    """The largest file holds the arrays; Orbax itself would return it altered."""
    largest = max((p for p in (saved / "20").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    spoil(largest, "flip")
    with Checkpoints(saved, report=lambda _: None) as checkpoints:
        state, _ = checkpoints.restore_latest(state_at(0))
        assert int(state.step) == 10
        # Its step can be reached and saved again.
        checkpoints.save(state_at(20), {})
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20]


def test_further_averages_are_items_that_are_checked_as_the_others(tmp_path):
    def averaged(step):
        state = state_at(step)
        return state._replace(averages={"0.9": state.params, "0.99": jax.tree.map(jnp.negative, state.params)})

    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, report=lambda _: None) as checkpoints:
        for step in (10, 20):
            checkpoints.save(averaged(step), {})
        checkpoints.wait()
        assert_same(checkpoints.restore_latest(averaged(0))[0], averaged(20))
        assert_same(checkpoints.restore("average_0.99", averaged(0).params)[1], averaged(20).averages["0.99"])
        # Those who do not ask for them need not know of them, nor of their damage.
        largest = max((p for p in (folder / "20" / "average_0.99").rglob("*")), key=lambda p: p.stat().st_size)
        spoil(largest, "flip")
        assert_same(checkpoints.restore_latest(state_at(0))[0], state_at(20))
        assert int(checkpoints.restore_latest(averaged(0))[0].step) == 10


def test_nothing_is_restarted_when_all_are_damaged(saved):
    for step in ("10", "20"):
        shutil.rmtree(saved / step / "params")
    with (
        Checkpoints(saved, report=lambda _: None) as checkpoints,
        pytest.raises(InputError, match="can be read"),
    ):
        checkpoints.restore_latest(state_at(0))
    assert {p.name for p in saved.iterdir()} >= {"10", "20"}


def alter(checkpoint: Path, **changes):
    """Change what a checkpoint says of itself; None takes a key away."""
    file = checkpoint / "meta" / "metadata"
    said = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def exchange(one: Path, two: Path):
    between = one.with_name("between")
    one.rename(between), two.rename(one), between.rename(two)


FORGERIES = {  # what is done to the checkpoints of 10 and 20 -> what is said, and where a resume goes on from
    "position": (lambda saved, other: alter(saved / "20", position={"next_index": 21}), "from its digest", 10),
    "renamed": (lambda saved, other: (saved / "20").rename(saved / "25"), "it is the checkpoint of step 20", 10),
    "far": (lambda saved, other: (saved / "20").rename(saved / "4000000000"), "checkpoint 20 .* is gone", 10),
    "odd": (lambda saved, other: (saved / "20").rename(saved / "0020"), "checkpoint 20 .* is gone", 10),
    "removed": (lambda saved, other: shutil.rmtree(saved / "20"), "checkpoint 20 .* is gone", 10),
    "foreign": (lambda saved, other: exchange(saved / "20", other / "20"), "it is of another run", 10),
    "item": (lambda saved, other: exchange(saved / "20" / "ema", other / "10" / "ema"), "from its checksum", 10),
    "pipe": (lambda saved, other: os.mkfifo(saved / "20" / "params" / "pipe"), "pipe is not a file", 10),
    "file": (lambda saved, other: (saved / "30").write_text(""), "checkpoint 30 .* is damaged", 20),
    "linked": (lambda saved, other: (saved / "30").symlink_to(saved / "20"), "it is the checkpoint of step 20", 20),
    "ledger": (lambda saved, other: saved.with_name("checkpoints.json").write_text("{}"), "json is damaged", 20),
    "no ledger": (lambda saved, other: saved.with_name("checkpoints.json").unlink(), "json is gone", 20),
    "unfinished": (lambda saved, other: (saved / "30.orbax-checkpoint-tmp").mkdir(), "", 20),
}


@pytest.mark.parametrize(("forge", "says", "goes_on"), FORGERIES.values(), ids=FORGERIES)
def test_a_checkpoint_is_what_it_was_saved_as_or_that_is_said(saved, tmp_path, forge, says, goes_on):
    shutil.copytree(saved, tmp_path / "other" / "checkpoints")
    alter(tmp_path / "other" / "checkpoints" / "20", run="another", sha256=None)
    other = tmp_path / "other" / "checkpoints" / "20" / "meta" / "metadata"
    other.write_text(json.dumps(manifest.signed(json.loads(other.read_text()))))
    forge(saved, other.parent.parent.parent)
    # Who only reads takes the same, says the same, and moves nothing.
    before, said = sorted(saved.rglob("*")), []
    with Checkpoints(saved, report=said.append) as checkpoints:
        step, ema = checkpoints.restore("ema", state_at(0).ema)
    assert step == goes_on
    assert_same(ema, state_at(goes_on).ema)
    assert re.search(says, " ".join(said))
    assert sorted(saved.rglob("*")) == before
    said.clear()
    with Checkpoints(saved, report=said.append) as checkpoints:
        state, position = checkpoints.restore_latest(state_at(0))
        assert_same(state, state_at(goes_on))
        assert position == {"next_index": goes_on}
        assert re.search(says, " ".join(said))
        assert ("10 steps are made again" in " ".join(said)) == (goes_on == 10)
        assert max(checkpoints.steps()) == goes_on
        # All is in order after that: the next step can be saved, and is what a resume goes on from, without a word.
        said.clear()
        checkpoints.save(state_at(30), {"next_index": 30})
        checkpoints.wait()
        assert_same(checkpoints.restore_latest(state_at(0))[0], state_at(30))
    assert not said
    assert not [path for path in saved.iterdir() if "tmp" in path.name]


def test_checkpoints_that_are_gone_are_not_a_new_run(saved):
    for step in ("10", "20"):
        shutil.rmtree(saved / step)
    for _ in range(2):
        with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match=r"are gone, up to that of step 20;"):
            checkpoints.restore_latest(state_at(0))
    with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match=r"are gone, up to that of step 20;"):
        checkpoints.restore("ema", state_at(0).ema)


@pytest.mark.parametrize("before", [False, True], ids=["with a digest", "of before"])
def test_another_structure_is_no_damage(saved, before):
    """It is refused by the first array that differs, and stays; so it is for those from before there were digests."""
    if before:
        for step in ("10", "20"):
            alter(saved / step, step=None, run=None, arrays=None, sha256=None)
        saved.with_name("checkpoints.json").unlink()
    sgd = init_state(lambda key: state_at(0).params, optax.sgd(0.1, momentum=0.9), TIMES, jax.random.key(0))
    wide = state_at(0)._replace(params=state_at(0).params | {"b": np.ones(4, np.float32)})
    there = {
        r"progress\['optimizer'\].* is (here|there) alone": sgd,
        r"params has arrays of other" if before else r"params\['b'\] is float32\[3\] there, float32\[4\] here": wide,
    }
    for says, template in there.items():
        with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match=says) as raised:
            checkpoints.restore_latest(template)
        assert "damaged" not in str(raised.value)
        assert {path.name for path in saved.iterdir()} == {"10", "20"}
    said = []
    with Checkpoints(saved, report=said.append) as checkpoints:
        state, _ = checkpoints.restore_latest(state_at(0))
        assert_same(state, state_at(20))
        checkpoints.save(state_at(30), {})  # a run of before goes on
        checkpoints.wait()
        assert int(checkpoints.restore_latest(state_at(0))[0].step) == 30
    assert not said


def test_who_reads_beside_a_run_takes_the_next_checkpoint(saved, monkeypatch):
    """The one that was chosen is removed before it is read; that is no damage, and is not said."""
    said = []
    with Checkpoints(saved, report=said.append) as reader, Checkpoints(saved, keep=1) as writer:
        assert writer.restore_latest(state_at(0))
        load = Checkpoints._load

        def overtaken(checkpoints, step, **arguments):
            if step == 20:
                monkeypatch.setattr(Checkpoints, "_load", load)
                writer.save(state_at(30), {})
                writer.wait()
            return load(checkpoints, step, **arguments)

        monkeypatch.setattr(Checkpoints, "_load", overtaken)
        assert reader.restore("ema", state_at(0).ema)[0] == 30
    assert not said


def test_a_missing_step_is_named(saved):
    said = "no checkpoint of step 15; there are 10, 20"
    with Checkpoints(saved) as checkpoints, pytest.raises(InputError, match=said):
        checkpoints.restore("ema", state_at(0).ema, step=15)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system with 3 MiB of room, which only root may mount."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk_leaves_the_last_checkpoint_intact(small_disk):
    with Checkpoints(small_disk / "checkpoints") as checkpoints:
        checkpoints.save(state_at(10), {"next_index": 10})
        checkpoints.wait()
        big = state_at(20)
        big = big._replace(ema=jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), (700_000,)), big.ema))
        with pytest.raises(RunError, match="free disk space"):  # noqa: PT012 (either call may be the one to notice)
            checkpoints.save(big, {})
            checkpoints.wait()
    with Checkpoints(small_disk / "checkpoints") as checkpoints:
        state, _ = checkpoints.restore_latest(state_at(0))
    assert_same(state, state_at(10))
