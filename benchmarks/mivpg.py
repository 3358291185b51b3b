"""Time and peak memory of MIVPG's correlated self-attention and its peers, 1,000 to 1,000,000 instances, in one run.

    python benchmarks/mivpg.py [--device cuda --dtype bfloat16 --flops] [--sizes 1000,10000,...] [--layers 4]
                               [--json FILE] [--plot FILE.png]

All methods are the same Q-Former (width 768, 12 heads, 32 queries, instances of 1408) and differ in what correlates
the instances before each cross-attention. Every figure is a process of its own, in turn; peak memory is what it takes
beyond the loaded model, the bag included. A training step is forward, loss and backward, with frozen instances.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.mivpg import MivpgConfig, MivpgModel
from wsi_mivpg.mivpg.attention import MultiHeadAttention, Packed, ZeroStartLinear

SIZES = (1_000, 10_000, 50_000, 200_000, 1_000_000)
WIDTH, GIB = 1408, 2**30
METHODS: dict[str, dict[str, Any]] = {
    "csa, sdpa": {"absorb_from": None},
    "csa, absorbed": {"absorb_from": 1},
    "csa, absorbed, reset": {"absorb_from": 1, "csa_carry": "reset"},
    "csa, default": {},
    "q-former, sdpa": {"csa": False, "absorb_from": None},
    "q-former, absorbed": {"csa": False, "absorb_from": 1},
    "nystroem (TransMIL)": {"csa": False, "absorb_from": None},
    "full attention": {"csa": False, "absorb_from": None},
    "csa, streamed, reset": {"csa_carry": "reset"},
    "csa, streamed": {},
}
"""What is measured, as settings of `MivpgConfig`. Peers are put in place of CSA; streamed bags are float16 files."""


class NystroemAttention(nn.Module):
    """TransMIL's layer, ``X + Nystroem(LN(X))``: landmarks are means of consecutive segments, the softmax matrix is
    approximated through them with an iterated pseudo-inverse, and values pass a depthwise convolution (kernel 33).

    Segments differ by one instance at most, so that no padding is needed; scales of the pseudo-inverse are each head's.
    """

    def __init__(self, config: MivpgConfig, landmarks: int = 256, iterations: int = 6, kernel: int = 33) -> None:
        super().__init__()
        self.landmarks, self.iterations = landmarks, iterations
        self.norm = nn.LayerNorm(config.encoder_hidden_size)
        self.attention = MultiHeadAttention(config, config.encoder_hidden_size, config.encoder_hidden_size)
        heads = config.num_attention_heads
        self.convolution = nn.Conv1d(heads, heads, kernel, padding=kernel // 2, groups=heads, bias=False)
        self.output = nn.Linear(config.hidden_size, config.encoder_hidden_size)

    def forward(self, bags: Packed, queries: Tensor) -> Packed:
        """One bag (M, D) -> (M, D); the queries are not used."""
        x = self.norm(bags.instances)[None]
        attention = self.attention
        query, key, value = (attention.heads(one(x)) for one in (attention.query, attention.key, attention.value))
        mixed = self.attend(query, key, value) + self._convolved(value)
        return bags._replace(instances=bags.instances + self.output(mixed.transpose(1, 2).flatten(2)[0]))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(1, heads, M, d) each -> (1, heads, M, d), linear in M."""
        query_marks, key_marks = self._marks(query), self._marks(key)
        core = ((query_marks @ key_marks.transpose(-1, -2)).float() * query.shape[-1] ** -0.5).softmax(-1)
        read = F.scaled_dot_product_attention(query_marks, key, value)
        return F.scaled_dot_product_attention(query, key_marks, (self._inverse(core) @ read.float()).to(value.dtype))

    def _marks(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[2]
        marks = min(self.landmarks, count)
        segment = torch.arange(count, device=tokens.device) * marks // count
        sums = tokens.new_zeros(*tokens.shape[:2], marks, tokens.shape[3]).index_add(2, segment, tokens)
        return sums / segment.bincount(minlength=marks)[:, None].to(tokens.dtype)

    def _inverse(self, core: Tensor) -> Tensor:
        identity = torch.eye(core.shape[-1], device=core.device, dtype=core.dtype)
        scale = core.abs().sum(-1).amax(-1) * core.abs().sum(-2).amax(-1)
        inverse = core.transpose(-1, -2) / scale[..., None, None]
        for _ in range(self.iterations):
            product = core @ inverse
            inverse = inverse @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product))) / 4
        return inverse

    def _convolved(self, value: Tensor) -> Tensor:
        """Along the instances, one kernel a head."""
        columns = value[0].permute(2, 0, 1)  # (d, heads, M)
        return self.convolution(columns).permute(1, 2, 0)[None]


class FullAttention(nn.Module):
    """``X + softmax(Q K^T) V Wo`` over every pair of instances, by SDPA."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.encoder_hidden_size)
        self.attention = MultiHeadAttention(config, config.encoder_hidden_size, config.encoder_hidden_size)
        self.output = ZeroStartLinear(config.hidden_size, config.encoder_hidden_size)

    def forward(self, bags: Packed, queries: Tensor) -> Packed:
        """One bag (M, D) -> (M, D); the queries are not used."""
        read = self.attention(self.norm(bags.instances)[None])[0]
        return bags._replace(instances=bags.instances + self.output(read))


PEERS = {"nystroem (TransMIL)": NystroemAttention, "full attention": FullAttention}


def build(method: str, layers: int) -> MivpgModel:
    """Return the untrained Q-Former of a method."""
    torch.manual_seed(0)
    config = MivpgConfig(num_hidden_layers=layers, **METHODS[method])
    model = MivpgModel(config).eval()
    for layer in model.qformer.encoder.layer:
        if method in PEERS and layer.crossattention is not None:
            layer.crossattention.csa = PEERS[method](config)
    return model


def one(
    method: str, size: int, train: bool, layers: int, device: str, dtype: str, repeats: int, flops: bool
) -> dict[str, float]:
    """Measure one figure in this process; `flops` adds a pass that counts them, and the device's own ceiling."""
    precision = getattr(torch, dtype)
    model = build(method, layers).to(device, precision)
    run(model, torch.randn(64, WIDTH, device=device, dtype=precision), train)  # libraries loaded, threads started
    with tempfile.TemporaryDirectory() as folder:
        forget_peak(device)
        before = resident(device)
        bag = streamed_bag(Path(folder), size) if "streamed" in method else random_bag(size, device, precision)
        seconds = [run(model, bag, train) for _ in range(repeats)]
        peak = peak_bytes(device) - before
        counted = counted_flops(model, bag, train, precision) if flops else {}
    return {
        "seconds": statistics.median(seconds),
        "peak_bytes": peak,
        "bag_bytes": size * WIDTH * bag.itemsize,
        **counted,
    }


def counted_flops(model: MivpgModel, bag: Any, train: bool, dtype: torch.dtype) -> dict[str, float]:
    """Count the floating point operations of a pass, recomputed ones too, and time a plain matrix product beside."""
    model.requires_grad_(train)  # the counter trips over parameters that want gradients where none are made
    with FlopCounterMode(display=False) as counter:
        run(model, bag, train)
    side = 8192 if model.device.type == "cuda" else 2048
    square = torch.randn(side, side, device=model.device, dtype=dtype)
    square @ square
    synchronise(model)
    began = time.perf_counter()
    for _ in range(10):
        square @ square
    synchronise(model)
    ceiling = 10 * 2 * side**3 / (time.perf_counter() - began)
    return {"flops": counter.get_total_flops(), "ceiling_flops_per_s": ceiling}


def random_bag(size: int, device: str, dtype: torch.dtype) -> Tensor:
    """Return (size, WIDTH) invented instances, made in place."""
    return torch.empty(size, WIDTH, device=device, dtype=dtype).normal_()


def streamed_bag(folder: Path, size: int) -> np.ndarray:
    """Return the memory map of (size, WIDTH) float16 instances in an HDF5 file."""
    with h5py.File(folder / "bag.h5", "w") as file:
        features = file.create_dataset("features", (size, WIDTH), np.float16)
        for start in range(0, size, 16384):
            features[start : start + 16384] = torch.randn(min(16384, size - start), WIDTH).half().numpy()
    return FeatureBag.open(folder / "bag.h5").features_view()


def run(model: MivpgModel, bag: Any, train: bool) -> float:
    """Return the seconds of one forward pass or training step."""
    model.zero_grad(set_to_none=True)
    synchronise(model)
    began = time.perf_counter()
    with torch.set_grad_enabled(train):
        prompt = model(bag, [len(bag)]).visual_prompt
        if train:
            prompt.square().mean().backward()
    synchronise(model)
    return time.perf_counter() - began


def synchronise(model: MivpgModel) -> None:
    """Wait for the device."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def forget_peak(device: str) -> None:
    """Let the peak start from what is held now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def resident(device: str) -> int:
    """Bytes held now: by tensors on the device, or by the process."""
    return torch.cuda.memory_allocated() if device == "cuda" else status_bytes("VmRSS")


def peak_bytes(device: str) -> int:
    """Most bytes held since `forget_peak`; pages of mapped files count on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    """A field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def measured(arguments: argparse.Namespace, method: str, size: int, train: bool) -> dict[str, Any]:
    """Measure one figure in a process of its own; it may run out of time or memory."""
    machine = [arguments.layers, arguments.device, arguments.dtype, arguments.repeats, arguments.flops]
    request = json.dumps([method, size, train, *machine])
    row = {"method": method, "instances": size, "train": train}
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", request], capture_output=True, text=True, timeout=arguments.limit_s
        )
    except subprocess.TimeoutExpired:
        return {**row, "failed": f"> {arguments.limit_s} s"}
    if done.returncode:
        lack = done.returncode < 0 or "memory" in done.stderr
        return {**row, "failed": "out of memory" if lack else done.stderr.strip().splitlines()[-1]}
    return {**row, **json.loads(done.stdout.splitlines()[-1])}


def measure_sizes(arguments: argparse.Namespace, method: str, train: bool, rows: list[dict[str, Any]]) -> None:
    """Add the figures of one method that are not in `rows` yet; beyond a size that failed, none is tried."""
    for size in sorted(arguments.sizes):
        row = next(
            (row for row in rows if (row["method"], row["instances"], row["train"]) == (method, size, train)), None
        )
        if row is None:
            row = measured(arguments, method, size, train)
            rows.append(row)
            if arguments.json:
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print(f"{'train' if train else 'forward':<8}{method:<24}{size:>10,}  {cell(row)}", file=sys.stderr)
        if "failed" in row:
            return


def kept(path: Path | None) -> list[dict[str, Any]]:
    """Figures of an interrupted run."""
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else []


def exponent(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """Slope of log(key) on log(instances) from 10,000 on, least squares."""
    far = [row for row in rows if key in row and row["instances"] >= 10_000]
    points = [(math.log(row["instances"]), math.log(row[key])) for row in far]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0]) if len(points) > 1 else None


def table(rows: Sequence[dict[str, Any]], train: bool) -> str:
    """Return one Markdown table: methods by sizes, seconds and GiB, and the exponent."""
    sizes = sorted({row["instances"] for row in rows})
    lines = ["| " + " | ".join(["method", *(f"{size:,}" for size in sizes), "time ~ M^"]) + " |"]
    lines.append("|" + "---|" * (len(sizes) + 2))
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["instances"]: row for row in rows if row["method"] == method and row["train"] == train}
        slope = exponent(list(own.values()), "seconds")
        cells = [cell(own[size]) if size in own else "" for size in sizes]
        lines.append("| " + " | ".join([method, *cells, "" if slope is None else f"{slope:.2f}"]) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any]) -> str:
    """Seconds and peak GiB, or why there are none."""
    if "failed" in row:
        return str(row["failed"])
    text = f"{row['seconds']:.3g} s, {row['peak_bytes'] / GIB:.2f} GiB"
    if "flops" not in row:
        return text
    speed = row["flops"] / row["seconds"]
    return f"{text}, {speed / 1e12:.3g} TFLOP/s ({speed / row['ceiling_flops_per_s']:.0%} of a plain product)"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw forward time and peak memory over instances, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, key, unit, label in zip(
        axes, ("seconds", "peak_bytes"), (1, GIB), ("forward, s", "peak beyond the model, GiB"), strict=True
    ):
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if row["method"] == method and not row["train"] and key in row]
            slope = exponent(own, key)
            name = method if slope is None else f"{method}: M^{slope:.2f}"
            axis.loglog([row["instances"] for row in own], [row[key] / unit for row in own], "o-", label=name)
        axis.set(xlabel="instances M", ylabel=label)
        axis.grid(True, which="both", alpha=0.2)
        axis.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def goals(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say which goals of the forward pass are met, with the figures."""
    found = {(row["method"], row["instances"]): row for row in rows if not row["train"] and "seconds" in row}
    lines = []
    plain, ours = found.get(("csa, sdpa", 200_000)), found.get(("csa, absorbed", 200_000))
    if plain and ours:
        lines.append(f"200k forward: {plain['seconds'] / ours['seconds']:.2f} times as fast as SDPA (goal 2)")
    if ours:
        room = 1.5 * ours["bag_bytes"] + GIB
        lines.append(f"200k forward: peak {ours['peak_bytes'] / GIB:.2f} GiB (goal {room / GIB:.2f})")
    if largest := found.get(("csa, absorbed", 1_000_000)):
        lines.append(f"1M forward: peak {largest['peak_bytes'] / GIB:.2f} GiB (goal 24)")
    slope = exponent([row for (method, _), row in found.items() if method == "csa, absorbed"], "seconds")
    if slope is not None:
        lines.append(f"forward time ~ M^{slope:.3f} (goal 1.05)")
    return lines


def main() -> None:
    """Measure everything that was asked for, in turn, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=list(SIZES))
    parser.add_argument("--methods", type=lambda text: text.split(";"), default=list(METHODS), help="separated by ;")
    parser.add_argument("--modes", type=lambda text: text.split(","), default=["forward", "train"])
    parser.add_argument("--layers", type=int, default=4, help="of the Q-Former; every second one has cross-attention")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=600)
    parser.add_argument("--json", type=Path, help="figures as they come; what is there is not measured again")
    parser.add_argument("--flops", action="store_true", help="TFLOP/s too, beside those of a plain matrix product")
    parser.add_argument("--plot", type=Path, help="a PNG of forward time and memory; needs matplotlib")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(*json.loads(arguments.one))))
        return
    rows = kept(arguments.json)
    for train in [mode == "train" for mode in arguments.modes]:
        for method in arguments.methods:
            if not (train and "streamed" in method):
                measure_sizes(arguments, method, train, rows)
    threads = os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()
    machine = f"{arguments.device}, {arguments.dtype}, {threads} threads, torch {torch.__version__}"
    print(f"{machine}, {arguments.layers} layers")
    for train in [mode == "train" for mode in arguments.modes]:
        print(f"\n**{'Training step' if train else 'Forward'}**\n\n{table(rows, train)}")
    print("\n" + "\n".join(f"- {line}" for line in goals(rows)))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
