"""``gpurerank doctor``."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device, Dtype, Model


def doctor(model: Model = "embedded", device: Device = "auto", dtype: Dtype = "auto") -> None:
    """Say what this machine runs, what is wrong, and how to mend it."""
    from gpurerank.doctor import examine

    with err.status("looking"):
        findings = examine(model, device, dtype)
    marks = {
        "ok": "[green]ok[/green]",
        "note": "[yellow]note[/yellow]",
        "wrong": "[red]wrong[/red]",
    }
    table = Table("", "", "", show_header=False, box=None)
    for finding in findings:
        table.add_row(marks[finding.level], finding.subject, escape(finding.found))
    out.print(table)
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)
