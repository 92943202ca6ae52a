"""Signs in on the gateway's page in headless Chromium and executes a cell in JupyterLab behind it: arguments are
the gateway's URL, a user and a password. The result comes over the kernel's WebSocket. Says "done" at the end."""

import os
import sys
import tempfile

from playwright.sync_api import sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main():
    url, user, password = sys.argv[1:]
    chromium = os.environ.get("PORTCULLIS_TEST_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=FLAGS, headless=True, viewport={"width": 1280, "height": 900}
        )
        page = browser.new_page()
        page.set_default_timeout(60_000)
        sockets = []
        page.on("websocket", lambda socket: sockets.append(socket.url))

        page.goto(url + "/lab")
        assert "/login?next=%2Flab" in page.url, page.url
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", password)
        page.press("input[name=password]", "Enter")
        page.wait_for_url("**/lab**")

        page.click(".jp-LauncherCard[data-category=Notebook]")
        # A cell that is run before the kernel is there is silently not run.
        page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()
        cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
        cell.click()
        page.keyboard.type("print('ans' + 'wer', 6 * 7)")
        page.keyboard.press("Shift+Enter")
        page.locator(".jp-OutputArea-output", has_text="answer 42").first.wait_for()
        assert any("/channels" in socket for socket in sockets), sockets

        page.goto(url + "/logout")
        page.click("button")
        page.goto(url + "/lab")
        assert "/login" in page.url, page.url
        browser.close()
    print("done")


main()
