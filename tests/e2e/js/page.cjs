// The status page in a browser: `node page.cjs URL FILE DIRECTORY`. Looks at it in light and dark,
// wide and on a phone, and once without scripts; puts screenshots into the directory, and prints
// what was seen as a line of JSON. FILE is the name of the upload whose bar is looked at.
const path = require("path");
const modules = process.env.NODE_MODULES;
const { chromium } = require(path.join(modules, "playwright-core"));

const VIEWS = [
  { name: "wide-light", width: 1200, scheme: "light", scripts: true },
  { name: "wide-dark", width: 1200, scheme: "dark", scripts: true },
  { name: "phone-light", width: 360, scheme: "light", scripts: true },
  { name: "phone-dark", width: 360, scheme: "dark", scripts: true },
  { name: "plain-light", width: 1200, scheme: "light", scripts: false },
];
const SHOTS_MAX = 10;

// What stands in the document, and where.
function read(file) {
  const text = (element) => element?.textContent.trim();
  const place = (element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    return { x: x + scrollX, y: y + scrollY, width, height };
  };
  const uploads = [...document.querySelectorAll("#now li")].map((one) => ({
    file: text(one.querySelector(".file")), state: text(one.querySelector(".state")),
    kind: one.className, how: text(one.querySelector(".how span")),
    bar: place(one.querySelector("svg")),
  }));
  const charts = {};
  for (const figure of document.querySelectorAll("figure")) {
    const bars = [...figure.querySelectorAll(".bars rect")];
    const highest = bars.reduce((a, b) => (b.getBBox().height > (a?.getBBox().height ?? 0) ? b : a), null);
    charts[`${figure.closest("section").id} ${figure.className}`] = {
      sum: text(figure.querySelector(".sum")), n_bars: bars.length,
      highest: highest && { said: text(highest), ...place(highest) },
      words: Math.min(...[...figure.querySelectorAll("text")].map((one) => one.getBoundingClientRect().height)),
      desc: text(figure.querySelector("desc")),
    };
  }
  const alive = document.querySelectorAll("script, link[href^=http], iframe, img, [onclick], [style]");
  return {
    uploads: uploads.map((one) => ({ ...one, is_looked_at: one.file === file })), charts,
    standing: text(document.querySelector(".standing")), acts: text(document.querySelector("#acts")),
    health: text(document.querySelector("#health")), storage: text(document.querySelector("#storage")),
    is_wider: document.documentElement.scrollWidth > innerWidth, n_alive: alive.length,
  };
}

// The colors of a screenshot at some points, read by the browser itself.
async function colors(browser, png, points) {
  const page = await browser.newPage();
  const found = await page.evaluate(async ([data, points]) => {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return points.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data].slice(0, 3));
  }, [png.toString("base64"), points]);
  await page.close();
  return found;
}

const time = () => document.querySelector("header time").textContent;

// What stands in the page, and a screenshot of the same: the page renews itself, and then the bars
// may be elsewhere.
async function shoot(page, file, target) {
  for (let n = 0; n < SHOTS_MAX; n++) {
    const before = await page.evaluate(time);
    const seen = await page.evaluate(read, file);
    const png = await page.screenshot({ fullPage: true, path: target });
    if (before === await page.evaluate(time)) return { seen, png };
  }
  throw new Error(`the page changed under each of ${SHOTS_MAX} screenshots`);
}

async function look(browser, view, url, file, directory) {
  const context = await browser.newContext({
    viewport: { width: view.width, height: 800 }, colorScheme: view.scheme,
    javaScriptEnabled: view.scripts,
  });
  const page = await context.newPage();
  const complaints = [], requests = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(url);
  const { seen, png } = await shoot(page, file, path.join(directory, `page-${view.name}.png`));
  const { bar, how } = seen.uploads.find((one) => one.is_looked_at) ?? {};
  if (bar) {
    const share = parseInt(how) / 100, middle = bar.y + bar.height / 2;
    const { highest } = seen.charts["hour uploads"];
    [seen.ground, seen.full, seen.room, seen.chart, seen.above] = await colors(browser, png, [
      [3, 3], [bar.x + bar.width * share * 0.8, middle],
      [bar.x + bar.width * (share + (1 - share) * 0.8), middle],
      [highest.x + highest.width / 2, highest.y + highest.height / 2],
      [highest.x + highest.width / 2, highest.y - 6],
    ]);
  }
  if (view.name === "wide-light") seen.fresh = await stays_fresh(page);
  if (!view.scripts) seen.reloaded = await reloads(page);
  await context.close();
  return { ...seen, complaints, requests };
}

// Whether the page changes by itself, and what was unfolded stays so.
async function stays_fresh(page) {
  await page.locator("#hour-numbers summary").click();
  await page.locator("#hour-numbers .scroll").evaluate((table) => table.scrollTo({ top: 60 }));
  await page.evaluate(() => { window.mark = "the same document"; });
  const before = await page.evaluate(time);
  await page.waitForFunction(
    (before) => document.querySelector("header time").textContent !== before, before);
  const mark = await page.evaluate(() => window.mark);
  const rows = await page.locator("#hour-numbers tbody tr:visible").count();
  const top = await page.locator("#hour-numbers .scroll").evaluate((table) => table.scrollTop);
  return { mark, rows, top };
}

// Whether it is loaded again without scripts.
async function reloads(page) {
  await page.waitForRequest(page.url(), { timeout: 30000 });
  return true;
}

async function main() {
  const [url, file, directory] = process.argv.slice(2);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
  const looks = VIEWS.map((view) => look(browser, view, url, file, directory));
  const seen = await Promise.all(looks);
  await browser.close();
  console.log(JSON.stringify(Object.fromEntries(VIEWS.map((view, at) => [view.name, seen[at]]))));
}

main().catch((error) => { console.error(String(error)); process.exit(1); });
