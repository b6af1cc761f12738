"""Use a notebook as a person does, in JupyterLab in a real browser, with nothing but this machine.

Opens the notebook, runs it from the first cell to the last, changes the head with the widget described "head", and sees
the picture beside it change. It fails where a cell fails, where the page reports an error, and where the browser,
JupyterLab or a kernel asks for anything that is not on this machine.

usage: python tools/lab_e2e.py [--screenshot FILE.png] NOTEBOOK.ipynb

The browser is Chromium: the program that the variable CHROMIUM names, or `chromium` on the path.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import Locator, Page, expect, sync_playwright

GUARD = Path(__file__).with_name("offline_guard")
START_SECONDS = 120
RUN_SECONDS = 600
ANSWER_SECONDS = 60

FLAGS = [
    "--no-sandbox",  # Chromium refuses its sandbox to root, which is who runs in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # A name that is not of this machine has no address, so a request to it fails as well as being counted.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

#: Settings of JupyterLab that differ from its own: no news, and every cell in the page, seen or not.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: where it is, the secret that opens it, and the log of refused connections."""

    address: str
    token: str
    refused: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def jupyterlab(root: Path, home: Path) -> Iterator[Server]:
    """JupyterLab on the folder `root`, with settings of its own in `home`; stopped with its kernels at the end."""
    for name, settings in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    server = Server(f"http://127.0.0.1:{free_port()}", secrets.token_hex(16), home / "refused.log")
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"} | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(GUARD),
        "OFFLINE_GUARD_LOG": str(server.refused),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={urlsplit(server.address).port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={server.token}", f"--ServerApp.root_dir={root}"]
    command += ["--LabApp.extension_manager=readonly", "--LabApp.news_url=None"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = home / "jupyterlab.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(server, process, log)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_for(server: Server, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"JupyterLab ended by itself:\n{log.read_text()}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{server.address}/api/status?token={server.token}", timeout=5)
            return
        time.sleep(0.25)
    sys.exit(f"JupyterLab did not start within {START_SECONDS} s:\n{log.read_text()}")


def run_all(page: Page, server: Server, name: str) -> Locator:
    """Open the notebook, run all its cells, wait for the last; returns its code cells."""
    page.goto(f"{server.address}/lab/tree/{name}?token={server.token}&reset", timeout=START_SECONDS * 1000)
    cells = page.locator(".jp-NotebookPanel .jp-CodeCell")
    cells.first.wait_for(timeout=START_SECONDS * 1000)
    # The indicator beside the notebook says idle before there is a kernel, and what is sent then is lost.
    idle = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\| Idle$"))
    idle.wait_for(timeout=START_SECONDS * 1000)
    # Stored outputs would look like results.
    for menu, entry in (("Edit", "Clear Outputs of All Cells"), ("Run", "Run All Cells")):
        page.get_by_role("menuitem", name=menu, exact=True).click()
        page.get_by_role("menuitem", name=entry, exact=True).click()
    # A folded cell has no prompt; it is waited for with the cells after it, and with the kernel.
    page.wait_for_function(
        r"""() => [...document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell .jp-InputArea-prompt')]
                  .every(prompt => /^\[\d+\]:$/.test(prompt.textContent.trim()))""",
        timeout=RUN_SECONDS * 1000,
    )
    idle.wait_for(timeout=ANSWER_SECONDS * 1000)
    return cells


def change_head(page: Page, cells: Locator) -> None:
    """Choose another value in the widget described "head"; the picture in the same cell must change."""
    labelled = page.locator(".jupyter-widgets").filter(
        has=page.locator(".widget-label", has_text=re.compile(r"^\s*head\s*$"))
    )
    control = labelled.filter(has=page.locator("select, .noUi-handle")).last
    cell = cells.filter(has=page.locator("img.widget-image")).filter(has=control).first
    expect(cell, 'no cell holds a widget described "head" and a picture').to_be_visible(timeout=ANSWER_SECONDS * 1000)
    control.scroll_into_view_if_needed()
    picture = cell.locator("img.widget-image").first
    expect(picture).to_be_visible(timeout=ANSWER_SECONDS * 1000)
    before = pixels(picture)
    if control.locator("select").count():
        choice = control.locator("select")
        last = choice.locator("option").count() - 1
        choice.select_option(index=last if choice.evaluate("select => select.selectedIndex") != last else 0)
    else:
        handle = control.locator(".noUi-handle")
        value = float(handle.get_attribute("aria-valuenow"))
        handle.press("ArrowRight" if value < float(handle.get_attribute("aria-valuemax")) else "ArrowLeft")
    deadline = time.monotonic() + ANSWER_SECONDS
    while pixels(picture) == before:
        if time.monotonic() > deadline:
            sys.exit("another head was chosen and the picture stayed the same")
        page.wait_for_timeout(250)


def pixels(picture: Locator) -> str:
    """What the picture shows, as the browser drew it: its address alone would change for the same pixels, too."""
    return picture.evaluate(
        """async picture => {
            await picture.decode();
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
            canvas.getContext('2d').drawImage(picture, 0, 0);
            return canvas.toDataURL();
        }"""
    )


def drive(page: Page, server: Server, notebook: Path) -> None:
    """The whole visit. Ends the program with a sentence where something is not as it should be."""
    expected = sum(cell.cell_type == "code" for cell in nbformat.read(notebook, as_version=4).cells)
    cells = run_all(page, server, notebook.name)
    if cells.count() != expected:
        sys.exit(f"{cells.count()} code cells in the browser, {expected} in the file")
    errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
    if errors.count():
        sys.exit(f"a cell failed:\n{errors.first.inner_text()}")
    print(f"ran {expected} cells", flush=True)
    change_head(page, cells)
    print("another head, another picture", flush=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Use a notebook in JupyterLab in a real browser.")
    parser.add_argument("notebook", type=Path, metavar="NOTEBOOK.ipynb")
    parser.add_argument("--screenshot", type=Path, metavar="FILE.png", help="what the page looked like at the end")
    options = parser.parse_args(arguments)
    notebook = options.notebook.resolve()
    browser_program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not notebook.is_file():
        sys.exit(f"there is no {options.notebook}")
    if not browser_program:
        sys.exit("no Chromium was found: install Debian's `chromium`, or name the program in the variable CHROMIUM")

    external: set[str] = set()
    errors: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="lab-e2e-", ignore_cleanup_errors=True) as home,
        tempfile.TemporaryDirectory(prefix="lab-e2e-notebooks-") as root,
    ):
        # A copy: what JupyterLab saves by itself must not end up in the checkout.
        shutil.copy(notebook, root)
        with jupyterlab(Path(root), Path(home)) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_program, args=FLAGS)
            context = browser.new_context(viewport={"width": 1280, "height": 1600})
            own = urlsplit(server.address).netloc

            def note(url: str) -> None:
                if urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).netloc != own:
                    external.add(url)

            context.on("request", lambda request: note(request.url))
            page = context.new_page()
            page.on("websocket", lambda opened: note(opened.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            try:
                drive(page, server, notebook)
            finally:
                if options.screenshot:
                    page.screenshot(path=options.screenshot)
                browser.close()
        if server.refused.exists():
            external.update(server.refused.read_text().splitlines())
    if external:
        sys.exit("something was asked of another machine:\n" + "\n".join(sorted(external)))
    if errors:
        sys.exit("the page reported errors:\n" + "\n".join(errors))
    print("nothing left this machine")


if __name__ == "__main__":
    main(sys.argv[1:])
