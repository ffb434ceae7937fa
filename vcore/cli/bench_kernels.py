"""``vcore bench kernels``: what the attention backends and the fused operations take here, for given shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcore.cli.output import reserved_stdout
from vcore.cli.shared_options import Config, Json, Plugins, Set
from vcore.errors import ConfigError

if TYPE_CHECKING:
    from vcore.bench.kernel_layers import TimedLayer

__all__ = ["kernels"]

Backends = Annotated[
    list[str] | None, typer.Option("--backend", "-b", metavar="NAME", help="May be given again; all if none.")
]
Cases = Annotated[
    str | None,
    typer.Option("--cases", metavar="KIND:ROWSxTOKENS[+CACHED],...", help="Such as decode:64x2048,prefill:4x4096."),
]
BlockSizes = Annotated[
    list[int] | None, typer.Option("--block-size", min=1, help="Tokens a block; may be given again.")
]


def kernels(
    backend: Backends = None,
    cases: Cases = None,
    heads: Annotated[int | None, typer.Option("--heads", min=1, help="Query heads; 32, latent 16.")] = None,
    kv_heads: Annotated[int | None, typer.Option("--kv-heads", min=1, help="Key-value heads; 8.")] = None,
    head_dim: Annotated[int | None, typer.Option("--head-dim", min=1, help="Features of a head; 128.")] = None,
    latent: Annotated[bool, typer.Option("--latent", help="Latent attention instead, as DeepSeek-V2 has it.")] = False,
    block_size: BlockSizes = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="bfloat16, float16 or float32.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="Such as cpu or cuda:0.")] = None,
    ops: Annotated[bool, typer.Option("--ops", help="Time fused operations, too.")] = False,
    config: Config = None,
    set_: Set = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Attention backends by themselves: microseconds of one layer, TB/s of decodes, TFLOP/s of prefills.

    Exit status 1 if a row failed, or nothing could be measured.
    """
    from vcore.bench.kernels import measure_kernels
    from vcore.config.cli_options import config_from_cli

    layer = _layer(latent, heads, kv_heads, head_dim)
    pairs = [*(set_ or []), *([f"runtime.device={device}"] if device is not None else [])]
    tree, base_dir = config_from_cli(config, pairs, plugins or [])
    with reserved_stdout(as_json) as emit:
        result = measure_kernels(
            tree,
            layer=layer,
            backends=backend or (),
            cases=cases,
            block_sizes=block_size or (),
            dtype=dtype,
            ops=ops,
            base_dir=base_dir,
        )
        if as_json:
            emit(result)
        else:
            _print(result)
    rows = result["kernels"] + result["ops"]
    if not rows or any(row["error"] for row in rows):
        raise typer.Exit(1)


def _layer(latent: bool, heads: int | None, kv_heads: int | None, head_dim: int | None) -> TimedLayer:
    from vcore.bench.kernel_layers import LatentLayer, PlainLayer

    if latent:
        for option, value in (("--kv-heads", kv_heads), ("--head-dim", head_dim)):
            if value is not None:
                raise ConfigError(f"{option} {value}: latent attention has no such thing; leave it or --latent out")
        return LatentLayer(num_heads=16 if heads is None else heads)
    num_heads, num_kv_heads = 32 if heads is None else heads, 8 if kv_heads is None else kv_heads
    if num_heads % num_kv_heads:
        raise ConfigError(
            f"--heads {num_heads} --kv-heads {num_kv_heads}: expected as many query heads for each key-value head; "
            f"make --heads a multiple of {num_kv_heads}, or choose another --kv-heads"
        )
    return PlainLayer(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=128 if head_dim is None else head_dim)


def _print(result: dict[str, Any]) -> None:
    where = result["device_name"] or result["device"]
    rows = [(row["backend"], str(row["block_size"]), row["case"], *_numbers(row)) for row in result["kernels"]]
    if rows:
        _print_table(f"attention: {where}, {result['dtype']}", ("backend", "block", "case"), rows)
    ops = [(row["op"], row["shape"], *_numbers(row)) for row in result["ops"]]
    if ops:
        _print_table(f"operations: {where}, {result['dtype']}", ("operation", "shape"), ops)
    for one in result["unusable"]:
        print(f"not measured: {one['backend']}: {'; '.join(one['reasons'])}")


def _numbers(row: dict[str, Any]) -> tuple[str, str, str]:
    """Microseconds, rate and how it was launched; or the error in place of the last."""
    if row["error"]:
        return "", "", row["error"]
    terabytes, teraflops = row["tb_per_s"], row.get("tflop_per_s")
    rate = f"{terabytes:.3g} TB/s" if teraflops is None else f"{teraflops:.3g} TFLOP/s"
    return f"{row['us']:,.1f}", rate, "graph" if row["captured"] else "launched"


def _print_table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    for name in names:
        table.add_column(name)
    table.add_column("us", justify="right")
    table.add_column("rate", justify="right")
    table.add_column("how")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as it is: an error may hold brackets
    Console().print(table)
