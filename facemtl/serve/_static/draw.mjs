// Faces over a picture, and numbers over time.
import { mean } from "./geometry.mjs";

const POINT = "#58d6b0";
const BOX = "#ffd166";
const AXES = [
  ["#ff5d5d", [1, 0, 0]], // towards the viewer's right
  ["#6fe36f", [0, -1, 0]], // up
  ["#6fa8ff", [0, 0, 1]], // out of the face
];
const COLOURS = ["#e4572e", "#17a398", "#7d70ba", "#e0a100", "#4f8ef7", "#d45fa8", "#7aa33b"];

// Over a canvas whose pixels are the picture's (times `scale`); mirrored: the picture is shown as in a mirror.
export function drawFaces(context, faces, schemas, scale, mirrored) {
  const width = context.canvas.width;
  const place = ([x, y]) => [mirrored ? width - (x + 0.5) * scale : (x + 0.5) * scale, (y + 0.5) * scale];
  faces.forEach((face, i) => {
    const [x1, y1, x2, y2] = face.box;
    const side = (x2 - x1) * scale;
    const line = Math.max(1.5, side / 120);
    const corners = [place([x1, y1]), place([x2, y2])];
    context.lineWidth = line;
    context.strokeStyle = BOX;
    const left = Math.min(corners[0][0], corners[1][0]);
    context.strokeRect(left, corners[0][1], side, corners[1][1] - corners[0][1]);
    drawPoints(context, face, schemas[face.schema], place, line);
    if (face.pose) drawAxes(context, face, place, side / 3, mirrored, line);
    drawText(context, heading(face, i), left, corners[0][1], Math.max(12, side / 14));
  });
}

export function heading(face, i) {
  const name = face.track_id === null ? `face ${i + 1}` : `face ${face.track_id}`;
  const said = Object.values(face.attributes).filter(({ certain }) => certain);
  return [name, ...said.map(({ label }) => label.replaceAll("_", " "))].join(", ");
}

function drawPoints(context, face, schema, place, line) {
  const points = Object.values(face.landmarks).map(place);
  context.strokeStyle = context.fillStyle = POINT;
  context.lineWidth = line / 1.5;
  context.beginPath();
  for (const [from, to] of points.length ? schema.edges : []) {
    context.moveTo(...points[from]);
    context.lineTo(...points[to]);
  }
  context.stroke();
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, points.length > 10 ? line : 1.7 * line, 0, 2 * Math.PI);
    context.fill();
  }
}

// The head's own axes from the middle of its points: R = Rz(roll) Rx(pitch) Ry(yaw), as facemtl/face.py defines it.
function drawAxes(context, face, place, length, mirrored, line) {
  const points = Object.values(face.landmarks);
  const [x1, y1, x2, y2] = face.box;
  const middle = points.length ? [0, 1].map((k) => mean(points.map((p) => p[k]))) : [(x1 + x2) / 2, (y1 + y2) / 2];
  const [x, y] = place(middle);
  context.lineWidth = 1.5 * line;
  for (const [colour, axis] of AXES) {
    const [dx, dy] = turned(axis, face.pose);
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + (mirrored ? -dx : dx) * length, y + dy * length);
    context.stroke();
  }
}

// x right, y down, z towards the viewer.
export function turned([x, y, z], { yaw, pitch, roll }) {
  const [a, b, c] = [yaw, pitch, roll].map((degrees) => (degrees * Math.PI) / 180);
  [x, z] = [x * Math.cos(a) + z * Math.sin(a), z * Math.cos(a) - x * Math.sin(a)];
  [y, z] = [y * Math.cos(b) - z * Math.sin(b), z * Math.cos(b) + y * Math.sin(b)];
  return [x * Math.cos(c) - y * Math.sin(c), y * Math.cos(c) + x * Math.sin(c), z];
}

function drawText(context, text, x, y, size) {
  context.font = `${size}px system-ui, sans-serif`;
  const wide = context.measureText(text).width;
  const left = Math.max(0, Math.min(x, context.canvas.width - wide - 8));
  const top = Math.max(0, y - size * 1.4);
  context.fillStyle = "rgba(10, 20, 25, 0.75)";
  context.fillRect(left, top, wide + 8, size * 1.35);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, left + 4, top + size * 0.7);
}

// Lines over the last `seconds`: history is [{time, values: {name: number}}], each value between low and high.
export function drawChart(canvas, history, names, low, high, seconds) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const now = history.at(-1)?.time ?? 0;
  const place = (time, value) => [
    width * (1 - (now - time) / seconds),
    height - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (height - 6) - 3,
  ];
  context.clearRect(0, 0, width, height);
  context.lineWidth = 1;
  context.strokeStyle = context.fillStyle = "#8aa0a9";
  context.font = "11px system-ui, sans-serif";
  for (const value of [low, (low + high) / 2, high]) {
    const [, y] = place(now, value);
    context.globalAlpha = 0.35;
    context.strokeRect(0, y, width, 0);
    context.globalAlpha = 1;
    context.fillText(String(value), 2, value === high ? y + 11 : y - 2);
  }
  context.lineWidth = 1.8;
  names.forEach((name, k) => {
    context.strokeStyle = colourOf(k);
    context.beginPath();
    let open = false;
    for (const { time, values } of history) {
      if (values[name] === undefined) open = false;
      else {
        context[open ? "lineTo" : "moveTo"](...place(time, values[name]));
        open = true;
      }
    }
    context.stroke();
  });
}

export const colourOf = (k) => COLOURS[k % COLOURS.length];
