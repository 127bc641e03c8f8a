"""lpips-score: arguments in, exit code out."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING

from .arguments import check_options, check_targets, parse
from .errors import LpipsError, OutputError
from .log import log_to
from .models import find_model
from .output import open_output, reason
from .say import one_line, say, say_lines
from .scoring import score
from .stopping import exit_on_kill, unhidden_stops
from .targets import find_pairs

if TYPE_CHECKING:
    from .scorer import Scorer

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code; `arguments` default to those of the process."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        with unhidden_stops(), exit_on_kill(), log_to(lambda text: say(f"note: {text}")):
            return _run(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has seen enough
        return 128 + 13
    except Exception as error:  # noqa: BLE001  a command ends with a word and an exit code, whatever happens
        if options.debug:
            say_lines(traceback.format_exc().rstrip())
        if isinstance(error, LpipsError):
            say(f"error: {error}")
            return error.exit_code
        words = (str(error).strip() or "no further word").splitlines()[0]
        say(f"error: unexpected {type(error).__name__}: {words}")
        if not options.debug:
            say("please report it with the output of --debug")
        return 3


def _run(options: argparse.Namespace) -> int:
    check_options(options)
    if options.list_providers:
        from .listing import describe

        _write(describe(options.format, fast_math=options.fast_math), options.output)
        return 0
    model = find_model(options.model)
    check_targets(options, model)
    pairs, total, single = ((), None, False) if options.info else find_pairs(options)
    if options.heatmap is not None and not options.info:
        from . import drawing

        drawing.check_target(options.heatmap, single)
    background = None
    if options.background is not None:
        from .images import parse_color

        background = parse_color(options.background)
    from .scorer import Scorer
    from .store import FeatureStore

    store = options.feature_store
    if store is not None:
        store = FeatureStore(store, precision=options.feature_precision or "fp32")

    def opened() -> Scorer:
        return Scorer(
            model,
            provider=options.provider,
            threads=options.threads,
            fast_math=options.fast_math,
            background=background,
            trust_engine=options.trust_engine,
            features=store,
            max_memory=options.max_memory,
        )

    if options.info:
        with opened() as scorer:
            _write_info(scorer, options)
        return 0
    with opened() as scorer:
        if peculiar := scorer.info.peculiarities:
            say(f"note: {scorer.path.name} is not plain LPIPS v0.1: {', '.join(peculiar)}")
        runs = scorer.provenance["runtime"]["provider"], scorer.info.precision, scorer.info.target
        if runs in _SLOW:
            say(f"note: {scorer.path.name}: {_SLOW[runs]}")
        return score(scorer, pairs, total, single, options)


# Provider, precision and target of graphs for which another is faster there.
_SLOW = {
    ("cpu", "fp16", ""): "half precision is slower than float32 on CPUs; use the fp32 model there",
    ("cpu", "int8", "tensorrt"): "INT8 for TensorRT is slower than float32 on CPUs; use the fp32 model there",
    ("cpu", "fp32", "openvino"): "is arranged for OpenVINO; use the model without openvino in its name there",
}


def _write_info(scorer: Scorer, options: argparse.Namespace) -> None:
    info = {**scorer.provenance["model"], **asdict(scorer.info)}
    described = {"model": {**info, "path": str(scorer.path)}, "runtime": scorer.provenance["runtime"]}
    if options.format == "json":
        text = json.dumps(described, indent=2)
    else:
        text = "\n".join(
            one_line(f"{part}.{key}: {value}") for part, values in described.items() for key, value in values.items()
        )
    _write(text, options.output)


def _write(text: str, output: str | None) -> None:
    with open_output(output, atomic=True) as stream:
        try:
            stream.write(f"{text}\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"{output or 'standard output'}: cannot be written: {reason(error)}") from error
