"""``gpurerank doctor``."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device, Dtype, Model

_STYLES = {"ok": "green", "note": "yellow", "error": "red"}


def doctor(model: Model = "embedded", device: Device = "auto", dtype: Dtype = "auto") -> None:
    """Check versions, hardware and models, and say how to fix what does not work."""
    from gpurerank.doctor import run_checks

    with err.status("checking versions, hardware and models"):
        checks = run_checks(model, device, dtype)
    table = Table("", "", "", show_header=False, box=None)
    for check in checks:
        style = _STYLES[check.level]
        table.add_row(
            f"[{style}]{check.level}[/{style}]", escape(check.subject), escape(check.result)
        )
    out.print(table)
    if any(check.level == "error" for check in checks):
        raise typer.Exit(1)
