// The page: camera and photos in, faces over the picture, numbers over time, JSON out.
import { colourOf, drawChart, drawFaces, heading } from "./draw.mjs";
import { BrowserRunner, ServerRunner } from "./runners.mjs";

const SECONDS = 20; // that the charts show
const MOST_FRAMES = 20_000; // kept for the export; the oldest go first
const IN_BROWSER = "in this browser";
const ON_SERVER = "on the server";

const $ = (id) => document.getElementById(id);
const state = { model: null, runner: null, stream: null, history: [], images: [], frames: [] };
const runners = {};
const video = document.createElement("video");
video.muted = video.playsInline = true;
const source = document.createElement("canvas"); // the picture as the network sees it

async function start() {
  const answer = await fetch("/model.json");
  if (!answer.ok) throw new Error(`/model.json: ${answer.status}`);
  state.model = await answer.json();
  const choices = state.model.browser ? [IN_BROWSER, ON_SERVER] : [ON_SERVER];
  $("runs").replaceChildren(...choices.map((text) => new Option(text)));
  try {
    await choose(choices[0]);
  } catch (error) {
    if (choices.length === 1) throw error;
    report(`The network does not run in this browser (${error.message}).`);
    $("runs").value = ON_SERVER;
    await choose(ON_SERVER);
  }
  for (const id of ["camera", "files", "runs"]) $(id).disabled = false;
  document.body.dataset.ready = "true";
}

async function choose(where) {
  $("where").textContent = "Loading the network…";
  runners[where] ??= where === IN_BROWSER ? new BrowserRunner(state.model) : new ServerRunner();
  await runners[where].ready;
  await runners[where].restart();
  state.runner = runners[where];
  const why = state.model.why_no_browser ? ` The network cannot run in this browser: ${state.model.why_no_browser}.` : "";
  const said = where === IN_BROWSER ? "No picture leaves this machine." : `Pictures are sent to ${location.host}.${why}`;
  $("where").textContent = `${state.model.spec.name} runs ${where}. ${said}`;
}

const report = (text) => ($("status").textContent = text);

// Run a task of the user's; what goes wrong is said, and the page goes on.
const guarded = (task) => async (event) => {
  try {
    await task(event);
  } catch (error) {
    report(error.message);
  }
};

// --- camera ---------------------------------------------------------------------------------------------------------

async function toggleCamera() {
  if (state.stream) return stopCamera();
  if (!navigator.mediaDevices) throw new Error("browsers give a camera to https pages and to this machine's own alone");
  $("camera").disabled = true;
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } } });
  } catch (error) {
    throw new Error(`no camera: ${error.message || error.name}`);
  } finally {
    $("camera").disabled = false;
  }
  const { stream } = state;
  stream.getVideoTracks()[0].addEventListener("ended", () => {
    stopCamera();
    report("The camera is gone.");
  });
  video.srcObject = stream;
  await video.play();
  $("camera").textContent = "Stop camera";
  await state.runner.restart();
  Object.assign(state, { history: [], frames: [] });
  requestAnimationFrame(() => nextFrame(stream));
}

function stopCamera() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  video.srcObject = null;
  $("camera").textContent = "Start camera";
}

// One frame at a time: while the network works the camera goes on, and what it shows meanwhile is dropped.
async function nextFrame(stream) {
  if (state.stream !== stream) return;
  if (video.videoWidth && video.readyState >= 2) {
    const time = performance.now() / 1000;
    copy(video, video.videoWidth, video.videoHeight);
    try {
      const shown = await createImageBitmap(source);
      const { faces, milliseconds } = await state.runner.frame(source, time);
      if (state.stream === stream) showFrame(shown, faces, time, milliseconds);
      shown.close();
    } catch (error) {
      report(error.message);
      await new Promise((resolve) => setTimeout(resolve, 500)); // a server that is busy is asked less
    }
  }
  requestAnimationFrame(() => nextFrame(stream));
}

function showFrame(picture, faces, time, milliseconds) {
  show(picture, faces, $("mirror").checked);
  state.frames.push({ time, width: picture.width, height: picture.height, faces });
  if (state.frames.length > MOST_FRAMES) state.frames.shift();
  const whole = state.frames.filter((frame) => time - frame.time < 1).length;
  report(`${count(faces.length, "face")}, ${milliseconds.toFixed(0)} ms a frame, ${whole} frames a second`);
  remember(faces[0], time);
}

// --- photos ---------------------------------------------------------------------------------------------------------

async function openPhotos(files) {
  if (state.stream) stopCamera();
  for (const file of files) {
    try {
      const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
      if (bitmap.width * bitmap.height > state.model.limits.max_pixels) {
        throw new Error(`${bitmap.width} x ${bitmap.height} pixels are over the limit of ${state.model.limits.max_pixels}`);
      }
      copy(bitmap, bitmap.width, bitmap.height);
      const { faces, milliseconds } = await state.runner.photo(source, file.name);
      const image = { name: file.name, width: bitmap.width, height: bitmap.height, faces };
      state.images.push(image);
      list(image, bitmap);
      show(bitmap, faces, false);
      report(`${file.name}: ${count(faces.length, "face")}, ${milliseconds.toFixed(0)} ms`);
    } catch (error) {
      report(`${file.name}: ${error.message}`);
    }
  }
}

function list(image, bitmap) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `${image.name} (${count(image.faces.length, "face")})`;
  button.addEventListener("click", () => show(bitmap, image.faces, false));
  const item = document.createElement("li");
  item.append(button);
  $("photos").append(item);
}

function copy(picture, width, height) {
  source.width = width;
  source.height = height;
  const context = source.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // transparency lies over white, as for the package
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, 0, width, height);
}

// --- what is seen ---------------------------------------------------------------------------------------------------

function show(picture, faces, mirrored) {
  const view = $("view");
  const scale = Math.max(1, Math.min(3, 640 / picture.width)); // small pictures are enlarged, so that lines stay thin
  view.width = picture.width * scale;
  view.height = picture.height * scale;
  const context = view.getContext("2d");
  context.save();
  if (mirrored) {
    context.translate(view.width, 0);
    context.scale(-1, 1);
  }
  context.drawImage(picture, 0, 0, view.width, view.height);
  context.restore();
  drawFaces(context, faces, state.model.schemas, scale, mirrored);
  $("hint").hidden = true;
  for (const id of ["export", "clear"]) $(id).disabled = false;
  showBars(faces);
}

function showBars(faces) {
  const [face] = faces;
  $("whose").textContent = face ? heading(face, 0) : "No face";
  const rows = [];
  for (const [name, { label, confidence, certain }] of Object.entries(face?.attributes ?? {})) {
    rows.push(bar(`${name}: ${label.replaceAll("_", " ")}`, confidence, certain));
  }
  if (face?.quality != null) rows.push(bar("quality", face.quality, true));
  if (face?.pose) {
    const line = document.createElement("p");
    line.textContent = Object.entries(face.pose).map(([name, value]) => `${name} ${value.toFixed(0)}°`).join("  ");
    rows.push(line);
  }
  $("bars").replaceChildren(...rows);
}

function bar(text, value, certain) {
  const row = document.createElement("div");
  row.className = certain ? "bar" : "bar unsure";
  const meter = document.createElement("meter");
  meter.value = value;
  const [name, percent] = [document.createElement("span"), document.createElement("span")];
  name.textContent = text + (certain ? "" : " ?");
  percent.textContent = `${(100 * value).toFixed(0)} %`;
  percent.className = "percent";
  row.append(name, meter, percent);
  return row;
}

// The first face's numbers: of each attribute the probability of its first class, and the angles.
function remember(face, time) {
  const values = { ...(face?.pose ?? {}) };
  for (const { probabilities } of Object.values(face?.attributes ?? {})) {
    const labels = Object.keys(probabilities);
    if (labels.length === 2) values[labels[0]] = probabilities[labels[0]];
  }
  state.history.push({ time, values });
  while (state.history[0].time < time - SECONDS) state.history.shift();
  const angles = state.model.tasks.includes("angles") ? ["yaw", "pitch", "roll"] : [];
  const shares = Object.values(state.model.spec.attributes).filter((labels) => labels.length === 2).map(([first]) => first);
  drawChart($("shares"), state.history, shares, 0, 1, SECONDS);
  drawChart($("angles"), state.history, angles, -60, 60, SECONDS);
  if ($("legend").childElementCount) return;
  for (const names of [shares, angles]) {
    names.forEach((name, k) => {
      const key = document.createElement("span");
      key.className = "key";
      key.style.color = colourOf(k);
      key.textContent = `— ${name.replaceAll("_", " ")}`;
      $("legend").append(key);
    });
  }
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

// --- export ---------------------------------------------------------------------------------------------------------

// What `facemtl predict --format plain` prints, for the photos; and the frames of the camera with their times.
function exported() {
  const frames = state.frames.map(({ time, width, height, faces }, i) => {
    const seconds = (time - state.frames[0].time).toFixed(3);
    return { name: `camera ${seconds} s, frame ${i + 1}`, width, height, faces };
  });
  return { face_version: state.model.face_version, images: [...state.images, ...frames] };
}

function save() {
  const blob = new Blob([JSON.stringify(exported(), null, 1)], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "faces.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function clear() {
  stopCamera();
  Object.assign(state, { history: [], images: [], frames: [] });
  for (const id of ["photos", "bars", "legend"]) $(id).replaceChildren();
  for (const id of ["view", "shares", "angles"]) $(id).getContext("2d").reset();
  for (const id of ["export", "clear"]) $(id).disabled = true;
  $("hint").hidden = false;
  $("whose").textContent = "No face yet";
  report("");
}

$("clear").addEventListener("click", guarded(clear));
$("camera").addEventListener("click", guarded(toggleCamera));
$("export").addEventListener("click", guarded(save));
$("runs").addEventListener("change", guarded(() => choose($("runs").value)));
$("files").addEventListener("change", guarded(() => openPhotos([...$("files").files])));
for (const [name, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
  });
}
document.addEventListener("drop", guarded((event) => openPhotos([...event.dataTransfer.files])));
start().catch((error) => {
  $("where").textContent = `facemtl could not start: ${error.message}`;
});
