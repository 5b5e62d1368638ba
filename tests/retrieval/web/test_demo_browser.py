"""The demo as people use it: its own process, and a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from demo_index import late_moment, make_demo_index
from saved_hcmi import save_tiny_hcmi

from hcmi.retrieval import VideoIndex

SECONDS = 60


@pytest.fixture(scope="module")
def browser():
    if os.environ.get("HCMI_BROWSER") != "1":
        pytest.skip("HCMI_BROWSER=1 has the page tried in a real Chromium")
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += [name for name in ("selenium", "gradio") if find_spec(name) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--mute-audio"):
        options.add_argument(option)
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def folder(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    make_demo_index(folder, save_tiny_hcmi(folder / "model"), ["a.mp4", "b & c.mp4", "d.mp4", "e.avi", "f.avi"])
    return folder


@pytest.fixture(scope="module")
def index(folder):
    with VideoIndex.open(folder / "index", device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def page(folder):
    """The address of `hcmi demo`, run as a process."""
    command = [sys.executable, "-m", "hcmi.cli", "demo", str(folder / "index"), "--port", "0", "--device", "cpu"]
    log = open(folder / "log", "w")  # noqa: SIM115
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
    address = process.stdout.readline().split(" ")[0]
    assert address.startswith("http://127.0.0.1:"), (folder / "log").read_text()
    yield address
    process.terminate()
    process.wait(SECONDS)
    log.close()


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, SECONDS, poll_frequency=0.05).until(condition)


def find(browser, selector: str):
    return browser.find_elements("css selector", selector)


def search(browser, page: str, query: str) -> list:
    """Opens the page, types a query, and gives the cards."""
    browser.get(page)
    (box,) = wait(browser, lambda _: find(browser, "#query input, #query textarea"))
    box.send_keys(query + "\n")
    return wait(browser, lambda _: find(browser, ".hit"))


def begin_to_play(browser, card) -> tuple[float, float]:
    """Clicks a card; when its player was first seen playing, and what length it says the file has."""
    browser.execute_script(
        """
        window.seen = [];
        const video = document.querySelector(".player video");
        for (const kind of ["playing", "timeupdate"])
            video.addEventListener(kind, () => { if (!video.paused) seen.push([video.currentTime, video.duration]); });
        """
    )
    card.click()
    return wait(browser, lambda _: browser.execute_script("return seen.length > 1 && seen[0]"))


def test_a_query_finds_the_video_and_a_click_plays_its_moment(browser, page, index):
    query, _, _ = late_moment(index, ".mp4", most=1)
    hits = index.search(query, top_k=8).hits
    cards = search(browser, page, query)
    assert [card.get_attribute("data-video") for card in cards] == [hit.video.rpartition("/")[2] for hit in hits]

    time, duration = begin_to_play(browser, cards[0])
    assert hits[0].start > 2 and abs(time - hits[0].start) < 0.5 and duration == pytest.approx(18, abs=0.2)
    picture = wait(browser, lambda _: find(browser, ".player .explanation img[src]"))[0]
    wait(browser, lambda _: picture.get_property("naturalWidth") > 800)
    thumbnails = find(browser, ".still img")
    assert len(thumbnails) == 5
    wait(browser, lambda _: all(image.get_property("naturalHeight") == 180 for image in thumbnails))
    other = hits[0].others[0]
    time, _ = begin_to_play(browser, find(browser, ".other")[0])
    assert abs(time - other.start) < 0.5
    find(browser, ".player .close")[0].click()
    assert not find(browser, ".player")[0].is_displayed()


def test_what_the_browser_cannot_play_is_converted(browser, page, index):
    query, place, hit = late_moment(index, ".avi")
    time, _ = begin_to_play(browser, search(browser, page, query)[place])
    note = find(browser, ".screen .note")[0].text
    start, end = (float(number) for number in re.findall(r"[\d.]+\d", note))
    assert note.startswith("Converted for this browser") and start <= hit.start < hit.end <= end
    assert abs(start + time - hit.start) < 0.5


def test_what_has_gone_and_what_is_wrong_is_told_on_the_page(browser, page, index, folder):
    query, _, hit = late_moment(index, ".mp4", most=1)
    video = hit.video
    os.rename(video, f"{video}.away")
    try:
        cards = search(browser, page, query)
        wait(browser, lambda _: "is not there any more" in cards[0].text)
        cards[0].click()
        for place in (".screen .note", ".explanation .note"):
            wait(browser, lambda _, place=place: "is not there any more" in find(browser, place)[0].text)
    finally:
        os.rename(f"{video}.away", video)
    from selenium.webdriver.common.keys import Keys

    box = find(browser, "#query input, #query textarea")[0]
    box.send_keys(Keys.BACKSPACE * len(query))
    find(browser, "#ask button.primary")[0].click()
    (message,) = wait(browser, lambda _: find(browser, ".message"))
    assert "The query is empty" in message.text and not find(browser, ".hit")


def test_an_example_is_chosen_and_sent(browser, page, index, folder):
    browser.get(page)
    wait(browser, lambda _: find(browser, "#example"))
    # A browser without a screen has no dialogue: the page's own input is caught before it would open one.
    browser.execute_script("HTMLInputElement.prototype.click = function () { document.body.append(this); };")
    find(browser, "#example")[0].click()
    (chooser,) = wait(browser, lambda _: find(browser, "input[type=file]"))
    chooser.send_keys(str(folder / "videos" / "d.mp4"))
    cards = wait(browser, lambda _: find(browser, ".hit"))
    expected = index.search(video=folder / "videos" / "d.mp4", top_k=8).hits
    assert [card.get_attribute("data-video") for card in cards] == [hit.video.rpartition("/")[2] for hit in expected]
    assert "Like d.mp4" in find(browser, ".summary")[0].text


def test_the_page_fits_a_phone_and_the_dark_and_asks_nothing_of_others(browser, page):
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        begin_to_play(browser, search(browser, page, "a red ring")[0])
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        grounds.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] == "rgb(255, 255, 255)" != grounds[1]

    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 20
    assert {url for url in urls if not url.startswith((f"{page}/", "data:", "blob:"))} == set()
