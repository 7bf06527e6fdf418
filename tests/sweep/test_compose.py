"""What cells share is composed once, and each is the config that Hydra alone would make."""

import dataclasses

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from keyseg.config import PROJECT, ConfigError, RunConfig, signature, validate
from keyseg.sweep.cells import Progress, freeze
from keyseg.sweep.compose import Composer, _reads
from keyseg.sweep.design import read_design

VALUES = [
    ["seed=0"],
    ["seed=7", "optim.lr=1e-3", "loss.keyword.weight=0"],
    ["optim.betas=[1,0.5]", "evaluation.protocols=[generated]"],
    ["model.lora.dropout=1", "optim.clip=2", "model.tokens.key_init=null"],
    ["prompt.system='two words, and a comma'", "model.tokens.key_init=tail"],
    ["runtime.show_progress=false", "runtime.threads=3", "evaluation.val_images=null"],
    ["data.prepare.refer.train=3"],  # read by the name of the data's folder
    ["paths.data=elsewhere"],
    ["data.keyword=head"],
    ["data.name=other"],
    ["fusion.residual=all"],
    ["+fusion.new=1"],
    ["model.sizes={}"],
    ["optim.betas.0=0.7"],
    ["prompt=long", "seed=1"],
    ["seed=3", "optim.steps=${optim.warmup}"],
    ["name=x", "rerun=true"],
]


@pytest.fixture(scope="module")
def hydra():
    """Composes, and counts how often."""

    class Counted:
        calls = 0

        def __call__(self, overrides):
            self.calls += 1
            return compose("config", list(overrides))

    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        yield Counted()


def made(config_of, overrides: list[str]) -> RunConfig | str:
    """The config, or the kind of the error."""
    try:
        return config_of(overrides)
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("chosen", [[], ["fusion=cross", "model=llava_1_5_7b"], ["data=refcoco"]])
def test_a_config_is_what_hydra_alone_would_make(hydra, chosen):
    composer = Composer(hydra)
    composer(chosen)
    for values in VALUES[:: 2 if chosen else 1]:
        given = [*chosen, *values]
        found, wanted = made(composer, given), made(lambda o: validate(hydra(o)), given)
        assert found == wanted, values
        if isinstance(wanted, str):
            continue
        kinds = [[type(v) for v in dataclasses.astuple(c.optim)] for c in (found, wanted)]
        assert kinds[0] == kinds[1]
        assert signature(found) == signature(wanted)


def test_cells_that_differ_in_values_are_composed_once(hydra):
    rows = [
        [f"seed={s}", f"fusion={f}", "optim.lr=0.1"] for s in range(20) for f in ("self", "add")
    ]
    before = hydra.calls
    cells = freeze(read_design(rows), Composer(hydra))
    assert hydra.calls - before == 2
    assert len({cell.signature for cell in cells}) == 40
    assert [cell.config.seed for cell in cells[:4]] == [0, 0, 1, 1]
    cells[0].config.optim.betas.append(9.0)
    assert cells[2].config.optim.betas == [0.9, 0.95]  # nothing is shared that can change


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("optim.steps=-1", "optim.steps=-1: must be 0 or more"),
        ("optim.steps=many", "optim.steps"),
        ("seed=null", "seed"),
        ("loss.keyword.target=last", "must be one of first, all"),
    ],
)
def test_a_wrong_value_is_the_error_that_it_was(hydra, value, words):
    composer = Composer(hydra)
    composer(["seed=0"])
    with pytest.raises(ConfigError, match=words) as found:
        composer(["seed=1", value])
    with pytest.raises(ConfigError) as wanted:
        validate(hydra(["seed=1", value]))
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("${a.b}/x_${c}", {"a.b", "c"}),
        ("${oc.env:HOME}/${a}", {"a"}),
        ("${oc.select:a,b}", None),
        ("${.b}", None),
        ("${a[0]}", None),
        ("${a.${b}}", None),
        ("plain $ {x}", set()),
    ],
)
def test_what_an_interpolation_reads(text, reads):
    plain = OmegaConf.to_container(OmegaConf.create({"k": [{"v": text}]}))
    assert _reads(plain) == (None if reads is None else frozenset(reads))


def test_work_that_takes_long_says_how_far_it_is():
    said: list[str] = []
    progress = Progress("composing cells", 4, said.append)
    for count in range(4):
        progress.every = -1.0 if count == 2 else 9.0
        progress.step()
    assert said == ["composing cells: 2 of 4"]
