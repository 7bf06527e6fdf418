import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from keyseg.config import PROJECT, ConfigError
from keyseg.sweep.group_help import first_line, groups
from keyseg.sweep.overrides import (
    check,
    one_line_errors,
    plain_flags,
    task_overrides,
    whole_mappings,
)
from tests import forked


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fuson=full", r"no such key 'fuson'. Did you mean 'fusion'\? There are: .*fusion"),
        ("fusion=ful", r"no such option. Did you mean 'full'\? fusion: .*cross.*seg_only"),
        ("fusion=cross,ful", r"fusion=ful: no such option. Did you mean 'full'\?"),
        ("optim.stepz=3", r"Did you mean 'optim.steps'\? optim has: .*steps"),
        ("loss.keyword.temprature=1", r"Did you mean 'loss.keyword.temperature'\?"),
        ("loss.keyword.temprature=0.1,1", r"Did you mean 'loss.keyword.temperature'\?"),
        ("lss.keyword.weight=1", r"Did you mean 'loss.keyword.weight'\?"),
        ("+optim.stepz=3", r"Did you mean 'optim.steps'\?"),
        ("loss/keyword=3", r"Did you mean 'loss.keyword'\?"),
        ("loss.name.x=3", r"loss.name is a value, not a group"),
        ("hydra/launcher=locl", r"Did you mean 'local'\? hydra/launcher: .*debug"),
        ("hydra.launcher.njobs=2", r"Did you mean 'hydra.launcher.n_jobs'\?"),
        ("sweeps=no-such", r"write \+sweeps=no-such; "),
        ("+sweeps=no-such", r"sweeps=no-such"),
        ("fusion=[cross", r"cannot be read as an override; write KEY=VALUE"),
        ("fusion", r"cannot be read as an override; write KEY=VALUE"),
        ("notify=cat >> x", r"in quotes of its own: \"KEY='VALUE'\" \(LexerNoViableAlt"),
        ("zzzzzz=1", r"no such key 'zzzzzz'. There are: "),
    ],
)
def test_misspelt(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check([override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "key", "found"),
    [
        (["hydra/sweeper=optuna"], "sweeper.objectives", {}),
        (["+sweeps=tune"], "sweeper.objectives", {"val/giou": "maximize"}),
        (
            ["+sweeps=tune", "hydra.sweeper.objectives={val/ciou: maximize, minutes: minimize}"],
            "sweeper.objectives",
            {"val/ciou": "maximize", "minutes": "minimize"},
        ),
        (
            ["+sweeps=tune", "+hydra.sweeper.objectives={minutes: minimize}"],
            "sweeper.objectives",
            {"val/giou": "maximize", "minutes": "minimize"},
        ),
        (
            ["hydra/sweeper=optuna", "hydra.sweeper.sampler_args={n_startup_trials: 3}"],
            "sweeper.sampler_args",
            {"n_startup_trials": 3},
        ),
        (
            ["hydra/launcher=slurm", "hydra.launcher.sbatch={mail-type: END}"],
            "launcher.sbatch",
            {"mail-type": "END"},
        ),
        (["+sweeps=table3", "ablation.baseline={seed: 0}"], "ablation.baseline", {"seed": 0}),
        (["ablation.replicate={first: 2}"], "ablation.replicate", {"first": 2}),
        (["ablation.metrics=[ciou]"], "ablation", {"metrics": ["ciou"]}),
        (["+sweeps=table3", "ablation.metrics=[ciou]"], "ablation.metrics", ["ciou"]),
        (["ablation.margin.giou=2", "ablation.drop_behind=20"], "ablation.margin", {"giou": 2}),
        (["model.sizes={text: {layers: 2}}"], "model.sizes", {"text": {"layers": 2}}),
    ],
)
def test_a_mapping_that_is_given_is_the_whole_mapping(given, key, found):
    arguments = whole_mappings(given)
    check(arguments)
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        config = compose("config", arguments, return_hydra_config=True)
    top = config.hydra if key.split(".")[0] in ("sweeper", "launcher") else config
    assert OmegaConf.to_container(OmegaConf.select(top, key)) == found


@pytest.mark.parametrize(
    "override",
    [
        "fusion=cross,full",
        "fusion=glob(*)",
        "fusion=choice(cross,full)",
        "optim.steps=range(1,4)",
        "loss.keyword.temperature=interval(0.01,1)",
        "optim.betas.0=0.8",
        "+fusion.anything=1",
        "~loss",
        "hydra.launcher.n_jobs=2",
        "hydra/launcher=debug",
        "seed=3",
        "name=x",
        "data.splits=null",
    ],
)
def test_right(override):
    check([override])


def test_options_of_the_chosen_group_are_known():
    check(["fusion=self", "fusion.residual=all"])
    with pytest.raises(ConfigError, match=r"fusion.residuall"):
        check(["fusion=self", "fusion.residuall=all"])


def test_help_and_completion_are_not_checked():
    assert task_overrides(["--help", "fuson=full"]) == []
    assert task_overrides(["-sc", "query=bash"]) == []
    assert task_overrides(["-m", "a=1", "b=2"]) == ["a=1", "b=2"]


def test_errors_of_ours_are_one_line_and_others_pass(capsys):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise ConfigError("optim.images_per_step=0: must be above 0")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: optim.images_per_step=0: must be above 0\n"
    with pytest.raises(ZeroDivisionError), one_line_errors():
        1 / 0  # noqa: B018


def test_a_colleague_who_gives_the_same_command_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise PermissionError(13, "Permission denied", "/lab/outputs/.reuse.lock")
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("error: /lab/outputs/.reuse.lock: Permission denied. Runs of somebody")
    assert "paths.outputs" in told
    assert told.count("\n") == 1
    with pytest.raises(FileNotFoundError), one_line_errors():
        raise FileNotFoundError(2, "No such file", "/lab")


@pytest.mark.parametrize("mode", [[], ["-m"], ["--cfg", "job"]])
def test_the_command_line_ends_in_one_line(mode, tmp_path):
    done = forked.run(PROJECT / "run.py", *mode, "fusion=ful", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: fusion=ful: no such option. Did you mean 'full'?")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("launcher", "options", "message"),
    [
        (
            "slurm",
            ["time=2"],
            "hydra.launcher.signal_delay=120 s leaves nothing of ",
        ),
        ("slurm", ["cells_per_job=0"], "hydra.launcher.cells_per_job=0: must be above 0"),
        ("slurm", ["gpus=2", "processes=3"], "hydra.launcher.processes=3: must be 1, or as many"),
        ("slurm", ["time=soon"], "Value 'soon' of type 'str' could not be converted to Integer"),
        ("local", ["n_jobs=0"], "hydra.launcher.n_jobs=0: must be above 0"),
        ("local", ["cells_per_job=-1"], "hydra.launcher.cells_per_job=-1: must be above 0"),
        ("local", ["grace=nan"], "hydra.launcher.grace=nan: must be 0 or more"),
    ],
)
def test_a_launcher_that_refuses_its_options_is_heard(launcher, options, message, tmp_path):
    given = [f"hydra.launcher.{option}" for option in options]
    where = (f"hydra/launcher={launcher}", f"paths.outputs={tmp_path}")
    sweep = ("-m", "fusion=self,cross", "--dry")
    done = forked.run(PROJECT / "run.py", *sweep, *where, *given, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_what_hydra_hides_behind_its_own_error_is_told(capsys):
    for cause in (ConfigError("a.b=1: must be 2"), TypeError("unexpected keyword 'nope'")):
        with pytest.raises(SystemExit) as caught, one_line_errors():
            raise InstantiationException("Error in call to target 'x.Y':\nhidden") from cause
        assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: a.b=1: must be 2",
        "error: Error in call to target 'x.Y': unexpected keyword 'nope'",
    ]


def test_help_lists_every_option_with_a_line_of_text():
    text = groups()
    for file in sorted((PROJECT / "experiments").glob("*/*.yaml")):
        assert first_line(file), f"{file}: the first line is a comment that says what it is"
        assert f" {file.stem} " in text


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("a=1 --dry", "a=1 dry=true"),
        ("-m a=1 --config-dir=mine --dry", "-m --config-dir=mine a=1 dry=true"),
        ("a=1 --cfg job b=2 -m --detach", "--cfg job -m a=1 b=2 detach=true"),
        ("-sc query=bash", "-sc query=bash"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_options_may_stand_between_overrides(given, wanted):
    assert plain_flags(given.split()) == wanted.split()


def test_the_help_text(tmp_path):
    run = [sys.executable, str(PROJECT / "run.py")]
    done = subprocess.run(
        [*run, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for part in ("python run.py -m fusion=cross,self,full", "* full", "reports/out/NAME", "$("):
        assert part in done.stdout


def test_tab_completion_knows_groups_and_sweeps(tmp_path):
    def complete(line: str) -> list[str]:
        # As a user types it: Hydra does not recognise an interpreter whose path holds a dot.
        typed = f"python run.py {line}"
        shell = {"COMP_LINE": typed, "COMP_POINT": "999", "PATH": "/usr/bin:/bin"}
        done = forked.run(PROJECT / "run.py", "-sc", "query=bash", cwd=tmp_path, env=shell)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert "fusion=full" in complete("fusion=")
    assert "optim.steps=" in " ".join(complete("optim.st"))
    groups = complete("")
    assert "fusion=" in groups
    assert not [g for g in groups if g.startswith(("tests", "docs", "keyseg"))]
