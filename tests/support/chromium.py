"""A real browser without a screen. It is given up where it hangs, and nothing of it is left afterwards."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from announced import announced
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.proxy import Proxy, ProxyType
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.file_detector import UselessFileDetector
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from urllib3.exceptions import HTTPError

SECONDS = 40
"""That anything may take."""

_PROGRAM_SECONDS = 15
_OPTIONS = (
    "headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "mute-audio", "window-size=1280,900"
)  # fmt: skip

T = TypeVar("T")


class NoAnswer(AssertionError):
    """The browser hangs, or its page does."""


class Chromium(webdriver.Remote):
    """
    The browser. What it was waited for in vain is told once; whatever it is asked then fails at once.

    Args:
        address: of its driver.

    Raises:
        NoAnswer: from any method, after `SECONDS`.
    """

    _hangs = ""

    def __init__(self, address: str):
        options = webdriver.ChromeOptions()
        for option in _OPTIONS:
            options.add_argument(f"--{option}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        # The driver, which knows more, gives up before its client does; and no request is sent again, and waited for.
        options.timeouts = {"implicit": 0, "pageLoad": 900 * SECONDS, "script": 900 * SECONDS}
        requests = {"init_args_for_pool_manager": {"retries": False}}
        direct = Proxy({"proxyType": ProxyType.DIRECT})
        client = ClientConfig(address, timeout=SECONDS, proxy=direct, init_args_for_pool_manager=requests)
        super().__init__(address, options=options, client_config=client, file_detector=UselessFileDetector())

    def execute(self, driver_command: Any, params: dict[str, Any] | None = None) -> Any:
        """Everything that is asked goes through here."""
        if self._hangs:
            raise NoAnswer(f"the browser was given up: {self._hangs}")
        try:
            return super().execute(driver_command, params)
        except (HTTPError, TimeoutException) as error:
            self._hangs = f"{driver_command} {params}: {error}"
            raise NoAnswer(f"the browser does not answer {self._hangs}") from error

    def wait_for(self, what: str, condition: Callable[[], T]) -> T:
        """What the condition gives as soon as that is true; `what` is for the failure."""
        try:
            return WebDriverWait(self, SECONDS, poll_frequency=0.05).until(lambda _: condition())
        except TimeoutException as error:
            self._hangs = f"waited {SECONDS} seconds for {what}"
            raise NoAnswer(self._hangs) from error

    def find(self, selector: str) -> list[WebElement]:
        """The elements that match a CSS selector now."""
        return self.find_elements("css selector", selector)

    def requested(self) -> list[str]:
        """The addresses of what pages have asked for since this was called last."""
        log = self.execute(Command.GET_LOG, {"type": "performance"})["value"]
        events = [json.loads(entry["message"])["message"] for entry in log]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@contextmanager
def open_chromium() -> Iterator[Chromium]:
    """Starts it; once again where it does not start, as on a machine that is very busy."""
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(_started())
        except (NoAnswer, TimeoutError, WebDriverException):
            browser = stack.enter_context(_started())
        yield browser


@contextmanager
def _started() -> Iterator[Chromium]:
    # What was just killed may have been writing still.
    with tempfile.TemporaryDirectory(prefix="hcmi-", ignore_cleanup_errors=True) as folder:
        command, said = ["chromedriver", "--port=0"], r"successfully on port (\d+)"
        variables = os.environ | {"TMPDIR": folder}
        with announced(command, said, Path(folder, "log"), _PROGRAM_SECONDS, env=variables) as (_, told):
            browser = Chromium(f"http://127.0.0.1:{told[1]}")
            yield browser
            with suppress(NoAnswer):
                browser.quit()
