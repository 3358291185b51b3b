"""On which file system a folder lies, as the kernel says it: do nodes share it, and do its locks reach them?"""

import re
from dataclasses import dataclass
from pathlib import Path

MOUNT_TABLE = Path("/proc/self/mountinfo")
_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "panfs", "pvfs2"}
    | {"smb3", "smbfs", "virtiofs", "wekafs"}
)
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.squashfuse", "fuse.squashfuse_ll", "fuseblk"})
_LOCKS_STAY_HERE = frozenset({"localflock", "noflock", "nolock", "local_lock=flock", "local_lock=all"})


@dataclass(frozen=True)
class Mount:
    """A mounted file system: its kind, such as ``nfs4``, and all its options."""

    kind: str
    options: frozenset[str]

    @property
    def is_network(self) -> bool:
        """Whether other machines may see it, as the kind says; a FUSE file system counts as such."""
        return self.kind in _NETWORK or (self.kind.startswith("fuse") and self.kind not in _LOCAL_FUSE)

    @property
    def locks_stay_here(self) -> str | None:
        """The mount option by which `flock` is not seen by other nodes; None where there is none."""
        return next(iter(sorted(self.options & _LOCKS_STAY_HERE)), None)


def mount_of(folder: Path, table: Path = MOUNT_TABLE) -> Mount:
    """Return the file system that holds `folder`; of kind ``unknown`` where the kernel does not say."""
    resolved = folder.resolve()
    best, depth = Mount("unknown", frozenset()), -1
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return best
    for line in lines:
        about, found, system = line.partition(" - ")
        fields, kinds = about.split(), system.split()
        if not found or len(fields) < 6 or not kinds:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        # A later line covers an earlier one at the same place.
        if resolved.is_relative_to(point) and len(point.parts) >= depth:
            depth = len(point.parts)
            options = ",".join([fields[5], *kinds[2:]])
            best = Mount(kinds[0], frozenset(options.split(",")))
    return best
