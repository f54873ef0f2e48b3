// "Where is this patch?": a click on the left frame chooses another patch. The cosines lie in the page, 0 to 255.
const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function colour(value) {
  const place = (value / 255) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((from, channel) => from + (STOPS[low + 1][channel] - from) * (place - low));
}

function draw(frame, map, values, rows, columns) {
  const small = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  const pixels = new ImageData(columns, rows);
  values.forEach((value, patch) => pixels.data.set([...colour(value), 255], 4 * patch));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const canvas = Object.assign(document.createElement("canvas"), { width: frame.naturalWidth, height: frame.naturalHeight });
  const context = canvas.getContext("2d");
  context.filter = "grayscale(1)";
  context.drawImage(frame, 0, 0);
  context.filter = "none";
  context.globalAlpha = 0.65;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  map.src = canvas.toDataURL();
}

for (const strip of document.querySelectorAll("[data-cosines]")) {
  const cosines = Uint8Array.from(atob(strip.dataset.cosines), (letter) => letter.charCodeAt(0)); // [patch, frame, patch]
  const [rows, columns] = strip.dataset.grid.split(" ").map(Number);
  const patches = rows * columns;
  const [query, ...others] = strip.querySelectorAll("figure");
  const [picture, box] = [query.querySelector("img"), query.querySelector(".box")];
  picture.addEventListener("click", (event) => {
    const bounds = picture.getBoundingClientRect();
    const row = Math.min(rows - 1, Math.floor(((event.clientY - bounds.top) / bounds.height) * rows));
    const column = Math.min(columns - 1, Math.floor(((event.clientX - bounds.left) / bounds.width) * columns));
    box.style.top = `${(100 * row) / rows}%`;
    box.style.left = `${(100 * column) / columns}%`;
    others.forEach((figure, number) => {
      const first = ((row * columns + column) * others.length + number) * patches;
      const values = cosines.subarray(first, first + patches);
      const [frame, map] = figure.querySelectorAll("img");
      draw(frame, map, values, rows, columns);
      figure.querySelector("output").textContent = number ? `cos up to ${(Math.max(...values) / 255).toFixed(2)}` : "itself";
    });
  });
}
