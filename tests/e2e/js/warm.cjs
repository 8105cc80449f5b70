// A warm binding in a browser, as a JSON line on standard input says: an operator fills in the form,
// strophe.js attaches to the session that comes of it, sends a message, and asks the server who it
// is. Prints what was seen as a line of JSON. Screenshots go where `pictures` says.
const fs = require("fs");
const path = require("path");
const modules = process.env.NODE_MODULES;
const { chromium } = require(path.join(modules, "playwright-core"));

// In the page: attaches, says hello, and waits until the server has answered.
function attach({ bosh, jid, sid, rid, to, text }) {
  return new Promise((resolve) => {
    const { Strophe, $msg, $pres, $iq } = window.Strophe.Connection ? window : window.strophe;
    const connection = new Strophe.Connection(bosh);
    const names = Object.fromEntries(Object.entries(Strophe.Status).map(([k, v]) => [v, k]));
    const seen = [];
    connection.attach(jid, sid, Number(rid), (status) => {
      seen.push(names[status]);
      if (status === Strophe.Status.DISCONNECTED) resolve({ seen });
      if (status !== Strophe.Status.ATTACHED) return;
      connection.send($pres());
      connection.send($msg({ to, type: "chat" }).c("body").t(text));
      const ping = $iq({ type: "get", to: Strophe.getDomainFromJid(jid) })
        .c("ping", { xmlns: "urn:xmpp:ping" });
      connection.sendIQ(ping, (answer) => resolve({ seen, pinged: answer.getAttribute("to") }),
                        () => resolve({ seen, pinged: null }), 10000);
    });
  });
}

async function look(browser, asked, name, view) {
  const context = await browser.newContext({
    viewport: { width: view.width, height: 700 }, colorScheme: view.scheme,
    httpCredentials: { username: asked.operator, password: asked.password },
  });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(asked.form);
  await page.screenshot({ path: path.join(asked.pictures, `warm-${name}.png`), fullPage: true });
  const is_wider = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  return { context, page, complaints, is_wider };
}

async function main() {
  const asked = JSON.parse(fs.readFileSync(0, "utf8"));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
  const phone = await look(browser, asked, "phone", { width: 360, scheme: "dark" });
  await phone.context.close();
  const { page, complaints, is_wider } = await look(browser, asked, "form", { width: 1000, scheme: "light" });
  await page.fill("[name=jid]", asked.jid);
  await page.fill("[name=password]", asked.secret);
  await page.click("[type=submit]");
  const binding = await page.evaluate(() => Object.fromEntries(
    ["jid", "sid", "rid"].map((name) => [name, document.querySelector(`dd.${name}`)?.textContent])));
  const title = await page.title();
  // The visitor's page is another one, and has no passwords.
  const visitor = await (await browser.newContext()).newPage();
  visitor.on("pageerror", (error) => complaints.push(String(error)));
  await visitor.goto(asked.site);
  await visitor.addScriptTag({ path: path.join(modules, "strophe.js/dist/strophe.umd.min.js") });
  const attached = await visitor.evaluate(attach, { ...asked, ...binding });
  await browser.close();
  console.log(JSON.stringify({
    title, binding, attached, complaints, is_wider: is_wider || phone.is_wider,
    phone: phone.complaints,
  }));
}

main().catch((error) => { console.error(String(error)); process.exit(1); });
