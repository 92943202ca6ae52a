// A session that expires while its browser is open: the next page load leads to the sign-in page, and a new sign-in back
// to where one wanted to go. A gateway of its own, whose sessions live for two seconds.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const PASSWORD = "correct horse battery";
const PATIENCE = 15_000;

export async function expiry(program, executablePath) {
  const directory = mkdtempSync(join(tmpdir(), "portcullis-expiry-"));
  const application = createServer((request, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end(`<!doctype html><title>app</title><h1>Hello, ${request.headers["x-forwarded-user"]}</h1>`);
  });
  await new Promise((resolve) => application.listen(0, "127.0.0.1", resolve));
  const config = join(directory, "gateway.toml");
  writeFileSync(
    config,
    `[server]\nlisten = ["127.0.0.1:0"]\n[log]\naccess = "off"\n[sessions]\nlifetime = "2s"\nidle = "2s"\n` +
      `[upstreams]\napp = "http://127.0.0.1:${application.address().port}"\n` +
      `[[routes]]\npath = "/**"\nallow = "signed-in"\nupstream = "app"\n`,
  );
  const add = ["user", "add", "alice", "--password-stdin", "--config", config];
  execFileSync(program, add, { input: `${PASSWORD}\n` });
  const gateway = spawn(program, ["serve", "--config", config], { stdio: ["ignore", "ignore", "pipe"] });
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-quic"] });
  try {
    const address = await listening(gateway.stderr);
    await drive(await browser.newPage(), `http://${address}`);
    console.log("ok    a session that expires leads to the sign-in page, and a new one back");
  } finally {
    await browser.close();
    gateway.kill("SIGTERM");
    application.close();
    rmSync(directory, { recursive: true });
  }
}

async function drive(page, base) {
  page.setDefaultTimeout(PATIENCE);
  await page.goto(`${base}/work?day=1`);
  await signIn(page);
  const heading = () => page.getByRole("heading", { level: 1 }).innerText();
  if ((await heading()) !== "Hello, alice") throw new Error(`not greeted: ${await heading()}`);
  // The event is the answer itself: pages are loaded until the session is over.
  const end = Date.now() + PATIENCE;
  while (new URL(page.url()).pathname !== "/login") {
    if (Date.now() > end) throw new Error("the session does not expire");
    await page.goto(`${base}/work?day=2`);
  }
  if ((await page.context().cookies()).length !== 0) throw new Error("the cookie of a session that is over stays");
  await signIn(page);
  const { pathname, search } = new URL(page.url());
  if (pathname + search !== "/work?day=2") throw new Error(`back at ${page.url()}`);
}

async function signIn(page) {
  await page.getByLabel("User name").fill("alice");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL((url) => url.pathname === "/work");
}

function listening(stderr) {
  return new Promise((resolve, reject) => {
    let text = "";
    stderr.setEncoding("utf8").on("data", (piece) => {
      text += piece;
      const address = /listening .*?address=(\S+)/.exec(text.replace(/\u001b\[[0-9;]*m/g, ""))?.[1];
      if (address) resolve(address);
    });
    stderr.on("end", () => reject(new Error(`the gateway ended early: ${text}`)));
  });
}
