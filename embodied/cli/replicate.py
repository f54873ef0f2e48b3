"""Test a paper's headline claim again.

A preset runs a small benchmark for a claim, at a size that fits a laptop, and says whether its direction is the same.

  embodied replicate list               the presets
  embodied replicate mvp                runs its small benchmark, resumably, and writes replicate.html
  embodied replicate mvp roles='{supervised: hf:google/vit-base-patch16-224}' seeds=10

The cells run as those of embodied bench do: launcher, workers, seeds, root, ... mean the same, and report.html is
written beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from embodied.bench.replicate import check_replication, judge, load_replication, preset_names
from embodied.bench.replicate_report import computing_seconds, verdict_table, write_replication
from embodied.bench.result_files import load_results
from embodied.cli.bench_arguments import compose_sub_verb
from embodied.cli.data import quoted
from embodied.core.errors import UsageError

ITS_OWN = ("suite=", "encoders=")  # settings of embodied bench that a preset decides
INTERRUPTED = 130


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied replicate`."""
    if not arguments or arguments[0] == "list":
        show_presets(Console())
        return 0
    taken = next((text for text in arguments if text.startswith(ITS_OWN)), None)
    if taken is not None:
        raise UsageError(
            f"{taken}: a preset has its own suite; name encoders by role, as in roles='{{masked: default}}'"
        )
    config = compose_sub_verb("replicate", arguments, positional=("paper",), about=__doc__, beside="bench")
    if config is None:
        return 0
    roles = OmegaConf.to_container(config.roles) if OmegaConf.is_dict(config.roles) else config.roles
    if roles is not None and not isinstance(roles, dict):
        raise UsageError(f"roles must be a group, '{{supervised: hf:...}}', got {roles!r}")
    named = {str(name): encoder for name, encoder in (roles or {}).items()}
    replication = load_replication(str(config.paper), named)
    check_replication(replication)
    encoders = f"encoders=[{','.join(map(quoted, replication.encoders))}]"
    chosen = compose_sub_verb("replicate", [*arguments, encoders], positional=("paper",), about=None)
    assert chosen is not None
    from embodied.cli.bench import bench

    console = Console()
    try:
        failed = bench(replication.suite, chosen, console)
    except KeyboardInterrupt:  # bench has said how to go on
        return INTERRUPTED
    folder = Path(chosen.root).expanduser() / replication.suite.name
    results = load_results(folder)
    verdicts = judge(replication, results)
    page = write_replication(folder, replication, verdicts, computing_seconds(results))
    console.print(verdict_table(replication, verdicts))
    console.print(f"verdicts [bold]{page}[/]", highlight=False, soft_wrap=True)
    return failed


def show_presets(console: Console) -> None:
    """`embodied replicate list`."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in preset_names().items():
        table.add_row(f"[bold cyan]{name}[/]", text)
    console.print(table)
    console.print(
        "\n[cyan]embodied replicate <paper>[/] runs one; [cyan]--help[/] shows the settings.", highlight=False
    )
