"""What is compared with what: every row of every table of `benchmarks/extract.py`."""

from dataclasses import dataclass, field
from pathlib import Path

GIGABYTE = str(1 << 30)
THRESHOLDS = {"MALLOC_MMAP_THRESHOLD_": GIGABYTE, "MALLOC_TRIM_THRESHOLD_": GIGABYTE}
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
ALLOCATOR = THRESHOLDS | HUGE_PAGES
PEERS = ("plain", "lazyslide", "tiatoolbox", "hs2p")
NAMES = {
    "plain": "plain loop",
    "lazyslide": "LazySlide",
    "tiatoolbox": "TIAToolbox",
    "hs2p": "hs2p + plain loop",
    "encoder": "encoder alone",
    "ours": "**ours**",
}
TILE_UM = 128.0
OWN_TILE_UM = 112.0


@dataclass(frozen=True)
class Row:
    """One way of running one tool.

    Attributes:
        tool: a key of NAMES.
        label: what is special about it.
        arguments: of its driver; for ours, of `wsi-mivpg extract`.
        environment: added to that of the process.
        slides: in place of those of the whole run.
        tile_um: side of its tiles.
    """

    tool: str
    label: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    slides: tuple[Path, ...] = ()
    tile_um: float = TILE_UM

    @property
    def key(self) -> str:
        """Rows with the same key are the same run."""
        slides = ",".join(path.name for path in self.slides)
        return " ".join([self.tool, *self.arguments, *(f"{k}={v}" for k, v in self.environment.items()), slides])


@dataclass(frozen=True)
class Table:
    """Rows under a title."""

    title: str
    rows: tuple[Row, ...]


def ours(label: str, encoder: str, precision: str = "auto", slides: tuple[Path, ...] = (), **more: str) -> Row:
    """Return a row of this package's command line with an encoder of `extract_peers.encoders`."""
    environment = {"EXTRACT_PRECISION": precision, **more}
    return Row("ours", label, ("--encoder", f"extract_peers.encoders:{encoder}"), environment, slides)


def tables(gigapixel: Path, slides: tuple[Path, ...]) -> dict[str, Table]:
    """Return all tables for a processor."""
    bf16, last = ("--precision", "bf16"), ("--channels-last",)
    own = [Row(tool, precision, ("--precision", precision)) for tool in PEERS for precision in ("fp32", "bf16")]
    own += [
        ours("fp32", "efficientnet", "fp32"),
        Row("ours", "defaults", ("--encoder", "efficientnet-lite0", "--tile-px", "256", "--force")),
        Row("ours", "defaults, its own 224-px tiles", ("--encoder", "efficientnet-lite0"), tile_um=OWN_TILE_UM),
    ]
    same = [
        Row(tool, precision, ("--precision", precision, *last), ALLOCATOR)
        for tool in PEERS
        for precision in ("fp32", "bf16")
    ]
    same += [
        Row("plain", f"{precision}, threads", ("--precision", precision, *last, "--readers", "threads"), ALLOCATOR)
        for precision in ("fp32", "bf16")
    ]
    same += [
        ours("fp32", "efficientnet", "fp32", **ALLOCATOR),
        ours("bf16", "efficientnet", "auto", **ALLOCATOR),
    ]
    free = [Row(tool, "", ("--encoder", "mean-colour")) for tool in PEERS]
    free += [Row("plain", "threads", ("--encoder", "mean-colour", "--readers", "threads")), ours("", "mean_colour")]
    threads = ("--readers", "threads")
    plain = [
        Row("plain", "as it is: fp32, forks", ("--precision", "fp32")),
        Row("plain", "glibc thresholds", (), THRESHOLDS),
        Row("plain", "huge pages", (), HUGE_PAGES),
        Row("plain", "threads for forks", threads),
        Row("plain", "channels_last", last),
        Row("plain", "bf16", bf16),
        Row("plain", "all but bf16", (*threads, *last), ALLOCATOR),
        Row("plain", "all", (*threads, *last, *bf16), ALLOCATOR),
    ]
    memory = [ours(f"{path.name} alone", "efficientnet", slides=(path,)) for path in (*slides, gigapixel)]
    return {
        "encoder": Table("The encoder alone, on tiles in memory", tuple(encoder_rows())),
        "own": Table("Everyone's own settings", tuple(own)),
        "same": Table("The same allocator settings, memory layout, batch and threads for all", tuple(same)),
        "free": Table("A free encoder: the mean colour", tuple(free)),
        "plain": Table("The plain loop, one factor at a time", tuple(plain)),
        "memory": Table("Memory of ours by size of slide", tuple(memory)),
    }


def encoder_rows() -> list[Row]:
    """Return the factors of the encoder alone, one by one from fp32 with channels_last."""
    last = ("--channels-last",)
    bf16 = (*last, "--precision", "bf16")
    two = ("--batch", "8", "--threads", "2")
    rows = [
        Row("encoder", "fp32, as timm builds it"),
        Row("encoder", "fp32, channels_last", last),
        Row("encoder", "… batch of 8", (*last, "--batch", "8")),
        Row("encoder", "… two threads, batch of 8", (*last, *two)),
        Row("encoder", "… glibc thresholds by the environment", last, THRESHOLDS),
        Row("encoder", "… glibc thresholds by mallopt", (*last, "--mallopt")),
        Row("encoder", "… the same, called off the main thread", (*last, "--mallopt", "--off-main")),
        Row("encoder", "… the same with one arena", (*last, "--mallopt", "--off-main", "--arenas", "1")),
        Row("encoder", "… huge pages", last, HUGE_PAGES),
        Row("encoder", "… thresholds and huge pages", last, ALLOCATOR),
        Row("encoder", "bf16, channels_last", bf16),
        Row("encoder", "… glibc thresholds by the environment", bf16, THRESHOLDS),
        Row("encoder", "… thresholds and huge pages", bf16, ALLOCATOR),
    ]
    for precision in ("fp32", "auto"):
        environment = {"EXTRACT_PRECISION": precision}
        mine = ("--ours", "efficientnet")
        name = f"ours, {'bf16' if precision == 'auto' else precision}"
        rows += [
            Row("encoder", f"{name}, batch of 32", mine, environment),
            Row("encoder", f"{name}, two threads, batch of 8", (*mine, *two), environment),
            Row("encoder", f"{name}, batch of 32, thresholds and huge pages", mine, environment | ALLOCATOR),
            Row("encoder", f"{name}, two threads, batch of 8, the same", (*mine, *two), environment | ALLOCATOR),
        ]
    return rows


def cuda_tables(gigapixels: tuple[Path, ...], device: str, network: str, batches: tuple[int, ...]) -> dict[str, Table]:
    """Return the table for an accelerator: ours, and the encoder alone called from one thread and from two."""
    environment = {"EXTRACT_VIT": network}
    alone = ("--ours", "vit", "--device", device, "--tiles", str(max(batches) * 4))
    rows = [
        Row(
            "encoder",
            f"batch of {batch}, {threads} calling",
            (*alone, "--batch", str(batch), "--threads", threads),
            environment,
        )
        for batch in batches
        for threads in ("1", "2")
    ]
    rows += [
        Row(
            "ours",
            label,
            ("--encoder", "extract_peers.encoders:vit", "--device", device, *more),
            environment,
            gigapixels,
            OWN_TILE_UM,
        )
        for label, more in [("defaults", ())]
        + [(f"batch of {batch}", ("--batch-size", str(batch))) for batch in batches]
    ]
    return {"cuda": Table(f"{network}, random weights, on {device}", tuple(rows))}
