"""Measures Keyreel's engine on a GPU, with random weights in the layout of the 13B model.

    python -m benchmarks.gpu --out out/gpu.json

Takes six minutes at most. Prints each figure when it is known, and a table at the end. Exits with 1 if a stage failed
or a check does not hold. `--quick` goes the same way on a CPU, with a tiny model. `--expected` prints what some cards
should take by calculation. See docs/performance.md.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.gpu import decoding, hardware, requests, steps, variants
from benchmarks.gpu.report import Report
from benchmarks.gpu.roofline import CARDS, expected
from benchmarks.gpu.stages import Stage, run
from benchmarks.tables import print_table

STAGES = {
    "versions": Stage(hardware.versions, limit=30),
    "products": Stage(hardware.products, limit=45),
    "bandwidth": Stage(hardware.bandwidth, limit=20),
    "attention": Stage(hardware.attention, limit=20),
    "Keyreel": Stage(steps.keyreel, limit=90),
    "diffusers": Stage(steps.stock, limit=75),
    "LoRA": Stage(variants.lora, limit=60),
    "decoding": Stage(decoding.decoding, limit=60),
    "memory": Stage(requests.peaks, limit=45),
    "plans": Stage(requests.plans, limit=90),
    "cancel": Stage(requests.cancel, limit=60),
    "eight bits": Stage(variants.rounded, limit=90),
    "compiled": Stage(steps.compiled, limit=90),
}
"""What matters most comes first: when the time is over, the rest is left out."""
SECONDS = 360.0


def main() -> int:
    options = _options()
    if options.expected:
        for card in CARDS:
            print_table(card.name, *expected(card))
        return 0
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    report = Report(options.out)
    device = "cpu" if options.quick else options.device
    run(STAGES, report, device=device, quick=options.quick, seconds=options.seconds)
    report.print_table()
    if broken := report.broken:
        print(f"\nNot as it should be: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all stages together")
    parser.add_argument("--quick", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--expected", action="store_true", help="print calculated figures and measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
