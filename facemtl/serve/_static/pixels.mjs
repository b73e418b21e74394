// Pictures are {data, width, height}: 8-bit red green blue alpha, row by row; alpha is never looked at.
// The same sampling as OpenCV's, to a grey level: facemtl/geometry.py and facemtl/detect.py say where it is used.

export function blank(width, height) {
  return { data: new Uint8ClampedArray(4 * width * height), width, height };
}

// Python's round(): halves go to the even neighbour.
export function roundEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

// The rectangle from (x, y), black where it leaves the picture.
export function cut(picture, x, y, width, height) {
  const out = blank(width, height);
  const left = Math.max(x, 0);
  const right = Math.min(x + width, picture.width);
  if (right <= left) return out;
  for (let row = Math.max(y, 0); row < Math.min(y + height, picture.height); row++) {
    const from = 4 * (row * picture.width + left);
    out.data.set(picture.data.subarray(from, from + 4 * (right - left)), 4 * ((row - y) * width + left - x));
  }
  return out;
}

// Bilinear, pixel centres on pixel centres of the same share of the side, the border repeated (cv2.INTER_LINEAR).
export function resizeLinear(picture, width, height) {
  const across = taps(picture.width, width);
  const down = taps(picture.height, height);
  const out = blank(width, height);
  const { data } = picture;
  for (let y = 0, to = 0; y < height; y++) {
    const top = 4 * picture.width * down.low[y];
    const bottom = 4 * picture.width * down.high[y];
    const v = down.share[y];
    for (let x = 0; x < width; x++, to += 4) {
      const left = 4 * across.low[x];
      const right = 4 * across.high[x];
      const u = across.share[x];
      for (let c = 0; c < 3; c++) {
        const above = data[top + left + c] * (1 - u) + data[top + right + c] * u;
        const below = data[bottom + left + c] * (1 - u) + data[bottom + right + c] * u;
        out.data[to + c] = above * (1 - v) + below * v;
      }
    }
  }
  return out;
}

function taps(from, to) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const share = new Float64Array(to);
  for (let i = 0; i < to; i++) {
    const place = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    low[i] = Math.floor(place);
    high[i] = Math.min(low[i] + 1, from - 1);
    share[i] = place - low[i];
  }
  return { low, high, share };
}

// The mean of what lies under each pixel (cv2.INTER_AREA), for shrinking.
export function resizeArea(picture, width, height) {
  const across = spans(picture.width, width);
  const down = spans(picture.height, height);
  const rows = new Float64Array(3 * width * picture.height);
  for (let y = 0; y < picture.height; y++) {
    for (let x = 0; x < width; x++) {
      for (const [column, weight] of across[x]) {
        const from = 4 * (y * picture.width + column);
        const to = 3 * (y * width + x);
        for (let c = 0; c < 3; c++) rows[to + c] += weight * picture.data[from + c];
      }
    }
  }
  const out = blank(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (const [row, weight] of down[y]) sum += weight * rows[3 * (row * width + x) + c];
        out.data[4 * (y * width + x) + c] = sum;
      }
    }
  }
  return out;
}

function spans(from, to) {
  const step = from / to;
  return Array.from({ length: to }, (_, i) => {
    const start = i * step;
    const end = Math.min(start + step, from);
    const found = [];
    for (let k = Math.floor(start); k < end; k++) {
      const weight = (Math.min(k + 1, end) - Math.max(k, start)) / (end - start);
      if (weight > 1e-9) found.push([k, weight]);
    }
    return found;
  });
}

// Half the size, by means of 2 x 2 pixels; an odd last row or column is left out.
export function halve(picture) {
  const out = blank(picture.width >> 1, picture.height >> 1);
  const { data } = picture;
  const line = 4 * picture.width;
  for (let y = 0, to = 0; y < out.height; y++) {
    for (let x = 0, from = 2 * y * line; x < out.width; x++, from += 8, to += 4) {
      for (let c = 0; c < 3; c++) {
        const sum = data[from + c] + data[from + 4 + c] + data[from + line + c] + data[from + line + 4 + c];
        out.data[to + c] = (sum + 2) >> 2;
      }
    }
  }
  return out;
}

// The means of whole blocks of `block` x `block` pixels; what is left over is padded with black.
export function averageBlocks(picture, block) {
  const out = blank(Math.ceil(picture.width / block), Math.ceil(picture.height / block));
  for (let y = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++) {
      let [red, green, blue] = [0, 0, 0];
      const bottom = Math.min((y + 1) * block, picture.height);
      const right = Math.min((x + 1) * block, picture.width);
      for (let row = y * block; row < bottom; row++) {
        for (let from = 4 * (row * picture.width + x * block), k = x * block; k < right; k++, from += 4) {
          red += picture.data[from];
          green += picture.data[from + 1];
          blue += picture.data[from + 2];
        }
      }
      const to = 4 * (y * out.width + x);
      out.data[to] = red / block ** 2;
      out.data[to + 1] = green / block ** 2;
      out.data[to + 2] = blue / block ** 2;
    }
  }
  return out;
}

// The square of `size` pixels that [a, b, c, d, e, f] maps into the picture: x = a u + b v + c, y = d u + e v + f.
// Bilinear, black outside (cv2.warpAffine).
export function warp(picture, [a, b, c, d, e, f], size) {
  const out = blank(size, size);
  const { data, width, height } = picture;
  const weights = new Float64Array(4);
  for (let v = 0, to = 0; v < size; v++) {
    for (let u = 0; u < size; u++, to += 4) {
      const x = a * u + b * v + c;
      const y = d * u + e * v + f;
      const left = Math.floor(x);
      const top = Math.floor(y);
      if (left < -1 || top < -1 || left >= width || top >= height) continue;
      const right = x - left;
      const below = y - top;
      weights[0] = (1 - right) * (1 - below);
      weights[1] = right * (1 - below);
      weights[2] = (1 - right) * below;
      weights[3] = right * below;
      let [red, green, blue] = [0, 0, 0];
      for (let k = 0; k < 4; k++) {
        const column = left + (k & 1);
        const row = top + (k >> 1);
        if (column < 0 || row < 0 || column >= width || row >= height) continue;
        const from = 4 * (row * width + column);
        red += weights[k] * data[from];
        green += weights[k] * data[from + 1];
        blue += weights[k] * data[from + 2];
      }
      out.data[to] = red;
      out.data[to + 1] = green;
      out.data[to + 2] = blue;
    }
  }
  return out;
}
