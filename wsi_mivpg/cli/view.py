"""``wsi-mivpg view``: slides, maps and sentences of written reports in the browser, from a server on this machine."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from wsi_mivpg.cli import console

EXAMPLES = "Examples: wsi-mivpg view out/report · wsi-mivpg view out/report --port 8080 --no-browser"


def view(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that `wsi-mivpg report` wrote.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any that is free.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Show the cases of a folder in the browser, read only, until Ctrl-C."""
    from wsi_mivpg.widgets.server import serve

    with serve(out, port) as server:
        print(server.address, flush=True)
        console.note("read only, for this machine alone; Ctrl-C ends it")
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.note("ended")
