"""Records of runs, as trainings and evaluations write them, for what is reported of them."""

import json
from pathlib import Path
from typing import Any

from storydalle.files.records import protocol_hash
from storydalle.reporting.report_runs import METRICS

PROTOCOL = {"name": "toon", "dataset": "toon", "split": "test", "resolution": 128, "features": {"sha256": "aa"}}


def record(folder: str, **fields: Any) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / METRICS).write_text(json.dumps(fields))


def evaluation(folder: str, seed: int = 0, protocol: dict[str, Any] | None = None, **fields: Any) -> None:
    """A record as ``evaluate`` writes it."""
    protocol = PROTOCOL if protocol is None else protocol
    defaults = {"config": "toon/test", "seeds": [seed], "protocol": protocol, "protocol_hash": protocol_hash(protocol)}
    record(folder, **(defaults | fields))


def log(folder: str, lines: str) -> None:
    Path(folder).mkdir(parents=True)
    (Path(folder) / "metrics.csv").write_text(lines)


def drawn(folder: str) -> None:
    """An evaluation with all that a page shows."""
    scores = {"f1": 0.5, "nats": 20.0}
    scores |= {f"error_at_{i}": 0.1 * i for i in range(1, 5)} | {
        f"character_f1_{name}": 0.4 for name in ("pip", "lulu")
    }
    values = {"real frames": {"f1": 1.0}, "<ours>": scores}
    evaluation(folder, protocol=PROTOCOL | {"name": "<toon>"}, values=values, intervals={"<ours>": {"f1": [0.4, 0.6]}})
    (Path(folder) / "index.html").write_text("strips")
