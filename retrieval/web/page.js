/* The player: a hit that is clicked plays from its moment on, with the picture that explains it beside it. */
(() => {
  let playing = null; // the button of the hit that is shown
  let moment = 0; // where it begins, in seconds of what is played

  const part = (selector) => document.querySelector(`.player ${selector}`);
  const sayAtVideo = (text) => { part(".screen .note").textContent = text; };
  const sayAtPicture = (text) => { part(".explanation .note").textContent = text; };

  function load(url, second, cannotPlay) {
    const video = part("video");
    moment = second;
    video.onloadedmetadata = () => {
      // A browser that knows only the sound of a file plays that, with no picture.
      if (video.videoWidth) playMoment();
      else cannotPlay();
    };
    video.onerror = cannotPlay;
    video.src = url;
  }

  function playMoment() {
    part("video").currentTime = moment;
    part("video").play().catch(() => {}); // where a page may not start playing, the player's own button does
  }

  async function convert(button) {
    const { hit, start } = button.dataset;
    stop();
    sayAtVideo("This browser cannot play the file: its moment is being converted …");
    const answer = await fetch(`hits/${hit}/clip`);
    const clip = answer.ok ? await answer.json() : await answer.text();
    if (playing !== button) return;
    if (!answer.ok) { sayAtVideo(clip); return; }
    const [from, to] = [clip.start, clip.end].map((second) => second.toFixed(1));
    sayAtVideo(`Converted for this browser: seconds ${from} to ${to} of the video.`);
    load(`hits/${hit}/clip.mp4`, start - clip.start, () => sayAtVideo("This browser cannot play the clip either."));
  }

  function explain(button) {
    const picture = part(".explanation img");
    const explained = "explained" in button.dataset;
    part(".explanation").hidden = !explained;
    picture.removeAttribute("src");
    if (!explained) return;
    const url = `hits/${button.dataset.hit}/explanation`;
    sayAtPicture("Reading the frames …");
    picture.onload = () => sayAtPicture("");
    picture.onerror = async () => {
      const text = await (await fetch(url)).text();
      if (playing === button) sayAtPicture(text);
    };
    picture.src = url;
    part(".explanation a").href = url;
  }

  function play(button) {
    const { hit, start, video } = button.dataset;
    mark(button);
    part("").hidden = false;
    part(".video").textContent = video;
    part("header .moment").textContent = button.dataset.moment;
    sayAtVideo("");
    load(`hits/${hit}/video`, Number(start), () => { if (playing === button) convert(button); });
    explain(button);
    part("").scrollIntoView({ behavior: "smooth", block: "start" });
  }

  function stop() {
    const video = part("video");
    video.onerror = video.onloadedmetadata = null;
    video.removeAttribute("src");
    video.load();
  }

  function close() {
    if (!playing) return;
    stop();
    mark(null);
    part("").hidden = true;
  }

  function mark(button) {
    if (playing) playing.removeAttribute("aria-current");
    playing = button;
    if (playing) playing.setAttribute("aria-current", "true");
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-hit], .player .again, .player .close");
    if (!button) return;
    if (button.matches(".close")) close();
    else if (button.matches(".again")) playMoment();
    else play(button);
  });

  // A thumbnail that cannot be made leaves its place to the words of the server.
  document.addEventListener("error", async (event) => {
    const picture = event.target;
    if (!picture.matches(".still img")) return;
    const text = await (await fetch(picture.src)).text();
    const note = document.createElement("span");
    note.className = "missing";
    note.textContent = text;
    picture.replaceWith(note);
  }, true);

  // Has the visitor choose a video and sends it; gives the name it has on the server, nothing if none was chosen.
  async function sendExample() {
    const file = await choose();
    if (!file) return "";
    document.body.classList.add("sending");
    try {
      const headers = { "X-File-Name": encodeURIComponent(file.name) };
      const answer = await fetch("examples", { method: "POST", body: file, headers });
      const text = await answer.text();
      if (!answer.ok) alert(text);
      else close();
      return answer.ok ? text : "";
    } finally {
      document.body.classList.remove("sending");
    }
  }

  function choose() {
    const input = Object.assign(document.createElement("input"), { type: "file", accept: "video/*,.mkv,.ts,.flv" });
    return new Promise((resolve) => {
      input.onchange = () => resolve(input.files[0]);
      input.oncancel = () => resolve(null);
      input.click();
    });
  }

  window.hcmi = { close, sendExample };
})();
