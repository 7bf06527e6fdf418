"""`keyseg intervene RUN... --key swap`: a finished run's test split with a state replaced.

Does the mask follow what KEY says? An evaluation answers it, no training. Results lie in the run
directory and stand in the sweep's report beside the untouched ones, paired. What is there already,
of the same weights, data and code, is not read again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keyseg.config import PROTOCOLS, ConfigError, resolve_path
from keyseg.runs import code, imported, interventions
from keyseg.runs.finding import HELP, find_all_finished
from keyseg.runs.interventions import REPLACED, REPLACEMENTS, Intervention, Stored

if TYPE_CHECKING:
    import pandas as pd

    from keyseg.runs.run_directory import RunDirectory
    from keyseg.train.evaluate import Record

# Imported late: what only this command needs, so that no other waits for it.

_DIFFERS = 0.002
"""Of gIoU, from what the run itself measured: more than another machine's rounding."""


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "intervene",
        help="read the test split of finished runs again with KEY's or SEG's state replaced",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {kind:18} {meaning}" for kind, meaning in REPLACEMENTS.items()),
    )
    parser.add_argument(
        "run_names",
        metavar="RUN",
        nargs="+",
        help=f"{HELP}; a sweep or SWEEP/LABEL means all its finished runs",
    )
    for token in REPLACED:
        parser.add_argument(
            f"--{token}",
            metavar="KINDS",
            default="",
            help=f"what {token.upper()}'s state becomes: {', '.join(REPLACEMENTS)}; several with ,",
        )
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default=PROTOCOLS[0], help=f"({PROTOCOLS[0]})"
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 (a GPU if there is one)"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    wanted = [i for token in REPLACED for i in _wanted(token, getattr(options, token))]
    if not wanted:
        raise ConfigError("nothing to replace: give --key or --seg, such as --key swap,zero")
    outputs = resolve_path(options.outputs)
    runs = {run.path: run for name in options.run_names for run in find_all_finished(outputs, name)}
    for run in runs.values():
        _check(run, wanted, options.protocol)
    for run in runs.values():
        _intervene(run, wanted, options.protocol, options.device)
    sweeps = dict.fromkeys(run.path.parent.name for run in runs.values())
    print(f"beside the untouched results: {' ; '.join(f'keyseg report {name}' for name in sweeps)}")
    return 0


def _wanted(token: str, kinds: str) -> list[Intervention]:
    names = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    for kind in names:
        if kind not in REPLACEMENTS:
            raise ConfigError(f"--{token} {kind}: must be one of {', '.join(REPLACEMENTS)}")
    return [Intervention(token, kind) for kind in dict.fromkeys(names)]


def _check(run: RunDirectory, wanted: Sequence[Intervention], protocol: str) -> None:
    """Raises ConfigError where there is nothing to replace, or nothing to hold it against."""
    if not run.config.model.tokens.n_keys and any(i.token == "key" for i in wanted):
        raise ConfigError(
            f"run {run.path} has no KEY in its answers (model.tokens.n_keys=0): leave it out, or "
            "give --seg alone"
        )
    if protocol not in run.config.evaluation.protocols:
        raise ConfigError(
            f"run {run.path} was not read under --protocol {protocol}, so that nothing would stand "
            f"beside it; it was under {', '.join(run.config.evaluation.protocols) or 'none'}"
        )


def _intervene(
    run: RunDirectory, wanted: Sequence[Intervention], protocol: str, device: str
) -> None:
    from keyseg.data import reading
    from keyseg.model.backbones.weights import check_trained_on, check_weights, weights_fingerprint

    cfg = run.config
    check_weights(cfg)
    check_trained_on(cfg, run.info)
    data = reading.read(cfg.data)
    before = run.info.get("data_fingerprint")
    if before not in (None, data.fingerprint):
        raise ConfigError(
            f"the data changed since run {run.path} (fingerprint {before} then, "
            f"{data.fingerprint} now): put back what was there"
        )
    of = {
        "checkpoint": str(run.info.get("checkpoint_fingerprint")),
        "data": data.fingerprint,
        "weights": weights_fingerprint(cfg),
        "code": code.of(code.targets(cfg), (*code.EVALUATION, *code.INTERVENTION)).fingerprint,
    }
    label = f"{run.info.get('label')}, seed {run.info.get('seed')}"
    left = [i for i in wanted if not _is_of(interventions.known(run, i, protocol), of)]
    for done in (i for i in wanted if i not in left):
        print(f"{label}: {done.name} was read already")
    if left:
        _read(run, left, protocol, device, data, of, label)


def _is_of(known: Mapping[str, str] | None, of: Mapping[str, str]) -> bool:
    """Whether results are there, and of the same; what older ones do not record may differ."""
    return known is not None and {**of, **known} == of


def _read(
    run: RunDirectory,
    left: Sequence[Intervention],
    protocol: str,
    device: str,
    data: Any,
    of: dict[str, str],
    label: str,
) -> None:
    import pandas as pd

    from keyseg.data.example import scored
    from keyseg.data.mix import groups
    from keyseg.model.backbones.weights import WeightsError
    from keyseg.predict.intervention import Reading, mean_iou
    from keyseg.predict.predictor import load_model
    from keyseg.train.build import with_others
    from keyseg.train.device import pick_device

    cfg = run.config
    try:
        parts = load_model(cfg, run.best_file, pick_device(device, "--device"), features=True)
    except (WeightsError, RuntimeError) as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    examples = [e for s in data.test for e in s.examples]
    parts = with_others(parts, examples)
    read = groups(e for s in data.test for e in scored(s.examples, cfg.evaluation.texts))
    reading = Reading(parts, read, cfg, protocol)
    before = reading.untouched()
    if imported.of(run.info):
        _keep_own(run, protocol, pd.DataFrame(before), data.fingerprint)
    else:
        _compare(run, protocol, mean_iou(before), label)
    for intervention in left:
        records = reading.under(intervention)
        made = Stored(intervention, protocol, of, pd.DataFrame(records))
        interventions.write(run, made)
        print(f"{label}: {_change(intervention, records, before)}")


def _change(intervention: Intervention, records: Sequence[Record], before: Sequence[Record]) -> str:
    """Of gIoU, over the examples that were given another state."""
    from keyseg.predict.intervention import mean_iou

    replaced = {r["id"] for r in records}
    own, other = mean_iou([r for r in before if r["id"] in replaced]), mean_iou(records)
    part = "" if len(records) == len(before) else f", {len(records)} of {len(before)} expressions"
    return (
        f"{intervention.token.upper()} {intervention.kind}: "
        f"gIoU {100 * own:.1f} -> {100 * other:.1f} ({100 * (other - own):+.1f}){part}"
    )


def _keep_own(run: RunDirectory, protocol: str, read: pd.DataFrame, data: str) -> None:
    """Imported weights were not read on a test of their own before: this is it."""
    import pandas as pd

    from keyseg.metrics import summarise
    from keyseg.worker.run import protocol_keys

    others = [run.samples()] if run.samples_file.exists() else []
    others = [rows[rows["protocol"] != protocol] for rows in others]
    run.write_samples(pd.concat([*others, read], ignore_index=True))
    summary = {**(run.info.get("summary") or {}), protocol: summarise(read)}
    run.update(summary=summary, protocol=protocol_keys(run.config), data_fingerprint=data)


def _compare(run: RunDirectory, protocol: str, untouched: float, label: str) -> None:
    """Says so where the model, read again, is not what the run measured."""
    samples = run.samples()
    before = float(samples.loc[samples["protocol"] == protocol, "iou"].mean())
    if abs(before - untouched) > _DIFFERS:
        print(
            f"warning: {label}: read again without any change gIoU is {100 * untouched:.2f}, the "
            f"run measured {100 * before:.2f}: another machine or version reads otherwise, and the "
            "difference is part of what is reported"
        )
