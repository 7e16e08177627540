"""`relayfile top`: what a running system does, while it does it."""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from relayfile.cli.running_system import DATA_DIR, INTERRUPTED

if TYPE_CHECKING:
    from relayfile.cli.top_parts import System
    from relayfile.clock import Clock

_DRAW_S: Final = 1.0
"""Ages grow while nobody answers."""


def top(
    once: bool = typer.Option(False, "--once", help="Look twice, an interval apart, print what is seen, and end."),
    interval_s: float = typer.Option(2.0, "--interval", min=0.2, max=60.0, help="Seconds between two looks."),
    in_json: bool = typer.Option(False, "--json", help="One JSON object for each look, for machines."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Show rates, queues, shards and their owners, mirrors and dead letters, until q or Ctrl-C.

    Each part of the system is asked by itself: one that does not answer is said to, with the age of its figures, and
    the others go on. Where nobody watches (no terminal) it is as with --once. Exit code 1 with --once when a part does
    not answer.
    """
    try:
        asyncio.run(_top(data_dir, interval_s, once=once or not (in_json or sys.stdout.isatty()), in_json=in_json))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def _top(data_dir: Path, interval_s: float, *, once: bool, in_json: bool) -> None:
    from relayfile.cli.connection import connect
    from relayfile.cli.shown import value_json
    from relayfile.cli.top_figures import figures_of
    from relayfile.cli.top_parts import System
    from relayfile.cli.top_screen import screen
    from relayfile.clock import SystemClock

    clock = SystemClock()
    async with System(connect(data_dir), clock) as system:
        if not once:
            await _live(system, clock, interval_s, in_json=in_json)
            return
        await system.look()
        await asyncio.sleep(interval_s)
        await system.look()
        figures = figures_of(system, clock.now_us())
        print(value_json(figures) if in_json else "\n".join(line.text for line in screen(figures)))
        if not figures.all_answer:
            raise typer.Exit(1)


async def _live(system: "System", clock: "Clock", interval_s: float, *, in_json: bool) -> None:
    """Until somebody ends it. The terminal is left as it was found."""
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(system.watch(interval_s))
        with _ending(ended):
            if in_json:
                await _print_lines(system, clock, interval_s, ended)
            else:
                await _draw(system, clock, interval_s, ended)
        watching.cancel()


async def _print_lines(system: "System", clock: "Clock", interval_s: float, ended: asyncio.Event) -> None:
    from relayfile.cli.shown import value_json
    from relayfile.cli.top_figures import figures_of

    while not await _is_over(ended, interval_s):
        try:
            print(value_json(figures_of(system, clock.now_us())), flush=True)
        except BrokenPipeError:  # who read has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return


async def _draw(system: "System", clock: "Clock", interval_s: float, ended: asyncio.Event) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from relayfile.cli.top_figures import figures_of
    from relayfile.cli.top_screen import screen

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            lines = screen(figures_of(system, clock.now_us()), *console.size)
            drawn = Text("\n").join(Text(line.text, style=line.style) for line in lines)
            drawn.no_wrap, drawn.overflow = True, "crop"
            live.update(drawn, refresh=True)
            if await _is_over(ended, min(interval_s, _DRAW_S)):
                return


async def _is_over(ended: asyncio.Event, wait_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await ended.wait()
    return ended.is_set()


@contextlib.contextmanager
def _ending(ended: asyncio.Event) -> Iterator[None]:
    """The key q and SIGTERM set ``ended``. Keys are read one by one meanwhile, and not shown."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        if not (keys := os.read(descriptor, 64)) or b"q" in keys.lower():
            loop.remove_reader(descriptor)
            ended.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
