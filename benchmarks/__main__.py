"""`python -m benchmarks COMMAND`: what measures this project, and where its errors become exit codes."""

import argparse
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module

from lpips_runtime.errors import LpipsError
from lpips_runtime.say import say

__all__ = ["COMMANDS", "main"]

# Name of the module, whose `main` takes the arguments and gives the exit code -> what it measures.
COMMANDS: Mapping[str, str] = {
    "accuracy": "agreement with people's judgement, and of artifacts with one another",
    "beside": "what scoring costs an encoder on the same cores; one session against several",
    "compare": "whether one artifact measures what another does: a gate for CI",
    "cuda": "how the CUDA provider is best opened",
    "latency": "time, memory, disk and answers of this project beside what a user would take instead",
    "memory": "memory at its peak, and what tiles cost",
    "precision": "how other precisions agree with float32 on photographs of yours",
    "providers": "speed and error of each provider beside the CPU provider",
    "report": "Markdown and pictures of what latency and scaling have measured",
    "reuse": "what encoding each image once saves",
    "scaling": "how what scoring takes grows, with pairs, pixels, threads and images",
    "speed": "this project beside lpips, compiled and exported plainly",
    "tables": "the README's tables, from the reports in results/",
    "tail": "arrangements of what follows the backbone",
    "throughput": "a stream of files against the bare session, and what batches gain",
    "waiting": "how long threads should spin while they wait",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Its exit code: 0 fine, 1 the answer is no, 2 the call was wrong, 3 the work failed."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        usage="python -m benchmarks COMMAND ...",
        epilog="\n".join(["commands:", *(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())])
        + "\n\nCOMMAND --help says more of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        return import_module(f"benchmarks.{options.command}").main(options.arguments)
    except LpipsError as error:
        for line in f"error: {error}".splitlines():  # of weights that no source has, one for each
            say(line)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except Exception:  # noqa: BLE001
        # Not with Python's exit code of 1, which would be an answer.
        traceback.print_exc()
        return 3


if __name__ == "__main__":
    sys.exit(main())
