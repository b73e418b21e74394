// From a face box to a crop and back: facemtl/geometry.py, whose names and formulas these are. A matrix is the array
// [a, b, c, d, e, f] that maps crop to image index coordinates: x = a u + b v + c, y = d u + e v + f.
import { averageBlocks, cut, warp } from "./pixels.mjs";

// Five points [[x, y], ...] -> the face box [x1, y1, x2, y2], or null where they are all in one place.
export function boxFromFive(points, boxSide) {
  const x = mean(points.map((p) => p[0]));
  const y = mean(points.map((p) => p[1]));
  const half = (boxSide / 2) * mean(points.map((p) => Math.hypot(p[0] - x, p[1] - y)));
  return half > 0 && Number.isFinite(half) ? [x - half, y - half, x + half, y + half] : null;
}

// In-plane rotation of five points, radians, clockwise as seen.
export function rollOfFive([[lx, ly], [rx, ry], , [mlx, mly], [mrx, mry]]) {
  const downX = (mlx + mrx - lx - rx) / 2;
  const downY = (mly + mry - ly - ry) / 2;
  return Math.atan2(ry - ly - downX, rx - lx + downY);
}

export function cropMatrix([x1, y1, x2, y2], size, scale, roll = 0) {
  const step = (((x2 - x1 + (y2 - y1)) / 2) * scale) / size;
  const cos = step * Math.cos(roll);
  const sin = step * Math.sin(roll);
  const middle = (size - 1) / 2;
  return [cos, -sin, (x1 + x2) / 2 - middle * (cos - sin), sin, cos, (y1 + y2) / 2 - middle * (sin + cos)];
}

// Image pixels that the side of a crop of `size` pixels covers.
export const cropSide = ([a, b, , d, e], size) => size * Math.sqrt(Math.abs(a * e - b * d));

export const cropRoll = ([a, , , d]) => Math.atan2(d, a);

export const applyAffine = ([a, b, c, d, e, f], [x, y]) => [a * x + b * y + c, d * x + e * y + f];

// Network coordinates, 0 in the middle and 1 a crop's side, to crop index coordinates.
export const pointToCrop = ([x, y], size) => [x * size + (size - 1) / 2, y * size + (size - 1) / 2];

// The crop that a matrix describes; where it is coarser than the picture, of blocks averaged first.
export function warpCrop(picture, [a, b, c, d, e, f], size) {
  let block = Math.max(1, Math.floor(Math.sqrt(Math.abs(a * e - b * d))));
  const [x1, x2] = span(c, a * (size - 1), b * (size - 1), 2 * block, picture.width);
  const [y1, y2] = span(f, d * (size - 1), e * (size - 1), 2 * block, picture.height);
  if (x2 <= x1 || y2 <= y1) return warp({ data: [], width: 0, height: 0 }, [1, 0, 0, 0, 1, 0], size);
  let part = cut(picture, x1, y1, x2 - x1, y2 - y1);
  block = Math.min(block, part.width, part.height);
  if (block > 1) part = averageBlocks(part, block);
  const start = [c - x1 - (block - 1) / 2, f - y1 - (block - 1) / 2];
  return warp(part, [a, b, start[0], d, e, start[1]].map((value) => value / block), size);
}

function span(start, along, down, margin, length) {
  const low = start + Math.min(along, 0) + Math.min(down, 0);
  const high = start + Math.max(along, 0) + Math.max(down, 0);
  return [Math.max(Math.floor(low) - margin, 0), Math.min(Math.ceil(high) + margin + 1, length)];
}

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Points [[x, y], ...] of a schema -> the five: each the mean of some indices.
export const toFive = (points, five) =>
  five.map((indices) => [0, 1].map((axis) => mean(indices.map((i) => points[i][axis]))));
