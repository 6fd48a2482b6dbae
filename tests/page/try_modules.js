// Runs every module on the masks of some images, and returns all that test_modules.py compares.
async (told) => {
  const { base, images, thresholds, looks, lines } = JSON.parse(told);
  const load = (name) => import(`${base}/page/js/${name}.js`);
  const [rle, mask, outline, palette, pairs, filters, labels, { MaskStacks }] = await Promise.all(
    ["rle", "mask", "outline", "palette", "pairs", "filters", "labels", "stacks"].map((name) => load(`masks/${name}`)),
  );
  const [records, coco, labelmap, overlay, cutouts, zips, curl] = await Promise.all(
    ["records", "coco", "labelmap", "overlay", "cutouts", "zip", "curl"].map((name) => load(`files/${name}`)),
  );

  const asBase64 = (blob) =>
    new Promise((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
      reader.readAsDataURL(blob);
    });
  const bytesOf = ({ buffer }) => asBase64(new Blob([buffer]));
  const fromBase64 = (text) => new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
  const refused = (act) => {
    try {
      return act() && "";
    } catch (error) {
      return `${error.name}: ${error.message}`;
    }
  };

  const inWorker = (asked) =>
    new Promise((resolve) => {
      const worker = new Worker(`${base}/page/js/masks/worker.js`, { type: "module" });
      worker.onmessage = ({ data }) => {
        worker.terminate();
        resolve(data);
      };
      worker.postMessage(asked);
    });

  const measure = (each, { width, height }) => ({
    runs: [...each.runs],
    counts: rle.encodeCounts(each.runs),
    area: rle.areaOf(each.runs),
    box: rle.boxOf(each.runs, height),
    rings: outline.ringsOf(each.runs, width, height).map((ring) => [...ring]),
  });

  const stacked = (masks, { width, height }) => {
    const stacks = new MaskStacks(width, height);
    for (const each of masks) stacks.add(each.id, each.runs, each.area);
    return stacks;
  };

  const draw = async (image, masks) => {
    const photo = await createImageBitmap(fromBase64(image.photo));
    const { width, height } = image;
    const named = masks.map((each, index) => ({ ...each, name: image.names[index] ?? "" }));
    const filled = masks.filter((each) => each.area);
    return {
      labelmap: await asBase64(await labelmap.labelMapPng(width, height, masks)),
      overlays: await Promise.all(
        looks.map(async (look) => asBase64(await overlay.overlayPng(photo, width, height, masks, look))),
      ),
      cutouts: await Promise.all(
        filled.map(async (each) => asBase64(await cutouts.cutOutPng(photo, width, height, each))),
      ),
      names: cutouts.cutOutNames(named),
      records: [records.recordsList(masks), records.recordsList(named)],
      coco: [coco.cocoDocument(image, masks), coco.cocoDocument(image, named)],
    };
  };

  const study = async (image) => {
    const { width, height } = image;
    const masks = image.records.map((record, id) => mask.maskOf(id, record));
    const stacks = stacked(masks, image);
    const overlaps = pairs.overlappingPairs(masks, height);
    const colours = [...labels.coloursOf(width, height, masks)];
    return {
      masks: masks.map((each) => measure(each, image)),
      frozen: masks.every(Object.isFrozen),
      merged: masks.length ? mask.mergedMask(masks.length, masks).record : null,
      union: [...rle.union(masks.map((each) => each.runs))],
      shared: masks.map((a) => masks.map((b) => rle.intersectionArea(a.runs, b.runs))),
      ids: await bytesOf(stacks.ids),
      lists: stacks.lists,
      at: image.places.map(([x, y]) => stacks.at(x, y)),
      pairs: overlaps,
      visible: thresholds.map((each) => [...filters.visibleIds(masks, overlaps, each)]),
      labels: await bytesOf(labels.labelMap(width, height, masks)),
      colours,
      ...(await draw(image, masks)),
    };
  };

  const work = async ({ width, height, records }) => {
    const masks = records.map((record, id) => mask.maskOf(id, record)).map(({ id, runs }) => ({ id, runs }));
    const worked = await inWorker({ width, height, masks });
    const stacks = MaskStacks.from(worked.stacks);
    stacks.add(masks.length, masks[0].runs, 1); // as if it were the smallest
    return {
      ids: await bytesOf(stacks.ids),
      lists: stacks.lists,
      pairs: worked.pairs,
      colours: [...worked.colours],
    };
  };

  const zipped = await zips.zip(
    [
      { name: "a.txt", blob: new Blob(["one"]) },
      { name: "ü/😀.bin", blob: new Blob([new Uint8Array(70000)]) },
      { name: "empty", blob: new Blob([]) },
    ],
    new Date(2026, 10, 29, 12, 34, 56),
  );
  return JSON.stringify({
    images: await Promise.all(images.map(study)),
    worked: await work(images[0]),
    palette: palette.PALETTE,
    zip: await asBase64(zipped),
    noFiles: await asBase64(await zips.zip([])),
    lines: lines.map(curl.curlLine),
    refused: {
      cut: refused(() => rle.decodeCounts("Q")),
      masks: refused(() => labels.labelMap(1, 1, Array(65536).fill({ id: 0, area: 0, runs: new Uint32Array() }))),
    },
    fromList: [...mask.maskOf(0, { segmentation: { size: [1, 3], counts: [1, 2] } }).runs],
    emptyWorker: Object.keys(await inWorker({ width: 2, height: 2, masks: [] })),
    workerError: (await inWorker({ width: 2 ** 20, height: 2 ** 20, masks: [] })).error,
  });
};
