"""Reports in batches against one `generate` for each case, with the same texts, and the time to the first report.

    python benchmarks/report.py [--cases 64] [--batch-sizes 8,16,32,64] [--device cpu] [--bags FOLDER] [--install]

Cases are draws of instances from bags of the model's encoder: those of `--bags`, or of slides that are rendered for it.
Wall and processor time are given: on a machine that others use, the second is the steadier. On CUDA the wall is what
counts. `--install` copies the table into `docs/reports.md`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demo import put_between_marks
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaseBags, Generated, SlideCaptioner, in_memory
from wsi_mivpg.captioner.generation import see
from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_cohort

BEGIN = "<!-- results: written by benchmarks/report.py -->"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--cases", type=int, default=64)
    parser.add_argument("--instances", type=int, default=1000, help="most of a case")
    parser.add_argument("--batch-sizes", default="8,16,32,64")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bags", type=Path, help="folder of bags of the model's encoder")
    parser.add_argument("--out", type=Path, default=Path("out/report_speed"))
    parser.add_argument("--install", action="store_true", help="copy the table into docs/reports.md")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bags = sorted((arguments.bags or rendered_bags(arguments.out)).glob("*.h5"))
    captioner: Any = SlideCaptioner.from_pretrained(arguments.model)
    captioner.to(arguments.device)
    cases = draws(bags, arguments.cases, arguments.instances)
    sizes = [int(size) for size in arguments.batch_sizes.split(",")]
    results = measure(captioner, cases, sizes, arguments.device)
    results["cold_s"] = cold_start(arguments.model, bags[0], arguments.device)
    results["device"] = (
        torch.cuda.get_device_name() if "cuda" in arguments.device else f"{torch.get_num_threads()} cores"
    )
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    table = as_markdown(results)
    print(table)
    if arguments.install:
        put_between_marks(Path("docs/reports.md"), table, BEGIN)


def rendered_bags(out: Path) -> Path:
    """Render slides and extract them, unless they are there."""
    bags = out / "data" / "bags"
    composed = compose_cohort(VirtualCohort(name="speed", test=8, seed=20261124), out / "data", splits=("test",))
    slides = [str(case.slide_paths[0]) for case in composed]
    subprocess.run([sys.executable, "-m", "wsi_mivpg", "extract", *slides, "--out", str(bags)], check=True)
    return bags


def draws(bags: Sequence[Path], count: int, instances: int) -> list[CaseBags]:
    """Return cases in memory, each of half to all of `instances` drawn from one bag, the bags taken in turn."""
    rng = np.random.default_rng(0)
    features = [FeatureBag.open(path).features for path in bags]
    cases = []
    for number in range(count):
        whole = features[number % len(features)]
        kept = min(len(whole), int(rng.integers(instances // 2, instances + 1)))
        rows = np.sort(rng.choice(len(whole), kept, replace=False))
        cases.append(in_memory(f"case-{number}", torch.from_numpy(np.ascontiguousarray(whole[rows]))))
    return cases


def measure(captioner: SlideCaptioner, cases: Sequence[CaseBags], sizes: Sequence[int], device: str) -> dict[str, Any]:
    """Time one call for each case, and one call for all, by batch size; the texts must be the same.

    Raises:
        SystemExit: a batch wrote another text than a case alone.
    """
    captioner.generate(cases[:2], batch_size=2)  # warm
    alone, alone_s, alone_cpu_s = timed(device, lambda: [captioner.generate([case])[0] for case in cases])
    with torch.no_grad():
        _, seen_s, _ = timed(device, lambda: [see(captioner, case) for case in cases])
    rows = []
    for size in sizes:
        made, wall_s, cpu_s = timed(device, lambda size=size: captioner.generate(cases, batch_size=size))
        other = [one.case_id for one, two in zip(alone, made, strict=True) if one.text != two.text]
        if other:
            sys.exit(f"batches of {size} wrote another text for {len(other)} of {len(cases)} cases: {other[:5]}")
        rows.append({"batch_size": size, "wall_s": wall_s, "cpu_s": cpu_s})
    tokens = sum(len(one.token_ids) for one in alone)
    return {
        "cases": len(cases),
        "instances": int(np.mean([len(case) for case in cases])),
        "tokens": tokens,
        "texts": len({one.text for one in alone}),
        "adapter_s": seen_s,
        "alone": {"wall_s": alone_s, "cpu_s": alone_cpu_s},
        "batched": rows,
    }


def timed(device: str, call: Callable[[], list[Any]]) -> tuple[list[Generated], float, float]:
    """Return what a call gives, and its wall and processor seconds."""
    wait = torch.cuda.synchronize if "cuda" in device else lambda: None
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    made = call()
    wait()
    return made, time.perf_counter() - wall, time.process_time() - cpu


def cold_start(model: str, bag: Path, device: str) -> float:
    """Return the seconds from the command's start to its first report, of a bag, without evidence."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "wsi_mivpg", "report", str(bag), "--model", model, "--out", out]
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--device", device, "--no-evidence"], stdout=subprocess.DEVNULL)
        path = Path(out) / "reports.jsonl"
        while not (path.exists() and path.stat().st_size):
            if process.poll() is not None and not path.exists():
                sys.exit(f"no report came of {bag}")
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        process.wait()
    return seconds


def as_markdown(results: dict[str, Any]) -> str:
    """Return the results as a table."""
    alone, cases = results["alone"], results["cases"]
    lines = [
        f"{cases} cases of {results['instances']} instances on average, {results['tokens']} tokens, {results['texts']} "
        f"different texts; {results['device']}; torch {torch.__version__}. The adapter's part is "
        f"{results['adapter_s']:.1f} s. All batches wrote the same texts as one-by-one calls. From a cold start to the "
        f"first report of a bag: {results['cold_s']:.1f} s.",
        "",
        "| cases at once | wall (s) | cases a minute | tokens a second | ratio | processor time (s) | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in [("one call each", alone), *((str(row["batch_size"]), row) for row in results["batched"])]:
        lines.append(
            f"| {name} | {row['wall_s']:.1f} | {60 * cases / row['wall_s']:.0f} | "
            f"{results['tokens'] / row['wall_s']:.0f} | {alone['wall_s'] / row['wall_s']:.1f} | {row['cpu_s']:.1f} | "
            f"{alone['cpu_s'] / row['cpu_s']:.1f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
