// Uppy's tus uploader in a browser: `node uppy.cjs PAGE_URL RESUME_URL SIZE SCREENSHOT`. The page
// is of another origin than the service. Prints what the page says as a line of JSON.
const path = require("path");
const modules = process.env.NODE_MODULES;
const { chromium } = require(path.join(modules, "playwright-core"));

async function main() {
  const [page_url, resume_url, size, screenshot] = process.argv.slice(2);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
  const page = await browser.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(page_url);
  const told = await page.evaluate(
    ([url, n]) => window.send(url, n), [resume_url, Number(size)]);
  if (screenshot) await page.screenshot({ path: screenshot });
  await browser.close();
  console.log(JSON.stringify({ ...told, complaints }));
}

main().catch((error) => { console.error(String(error)); process.exit(1); });
