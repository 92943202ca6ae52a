// Drives a running gateway in front of the demo application the way a person does, and looks at every page on the way
// in light and dark, wide and at 360 px, with axe. Then once more without JavaScript (which axe itself needs).
//
//   portcullis demo                      # prints address, user and password; the user must not be in group admin
//   cd tests/browser && npm ci
//   GATEWAY_URL=http://127.0.0.1:8080 USERNAME=alice PASSWORD=… node browser.mjs
//
// CHROMIUM names the browser, SCREENSHOTS a folder for pictures. A wrong password is tried three times per run, and
// the password is changed, and changed back. Exit 0: all is well. 1: a check failed. 2: something is missing to begin with.

import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const { GATEWAY_URL, USERNAME, PASSWORD, SCREENSHOTS } = process.env;
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const CHROMIUM = process.env.CHROMIUM ?? BROWSERS.find((path) => existsSync(path));
const AXE = readFileSync(fileURLToPath(import.meta.resolve("axe-core/axe.min.js")), "utf8");
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const DEADLINE = 180_000;
const LOOKS = [
  { name: "light", colorScheme: "light", width: 1100, height: 800 },
  { name: "dark", colorScheme: "dark", width: 1100, height: 800 },
  { name: "phone-light", colorScheme: "light", width: 360, height: 740 },
  { name: "phone-dark", colorScheme: "dark", width: 360, height: 740 },
];
const PHONE =
  "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1";
const SECURITY = {
  "cache-control": /no-store/,
  "content-security-policy": /default-src 'none'.*frame-ancestors 'none'/,
  "referrer-policy": /^same-origin$/,
  "x-content-type-options": /^nosniff$/,
};

class Failure extends Error {}

function check(holds, claim, seen) {
  if (!holds) throw new Failure(seen === undefined ? claim : `${claim}; seen: ${JSON.stringify(seen)}`);
}

/** Names a step in the output and in the message of whatever fails inside. */
async function step(name, run) {
  try {
    const result = await run();
    console.log(`ok    ${name}`);
    return result;
  } catch (error) {
    error.message = `${name}: ${error.message}`;
    throw error;
  }
}

/** Everything that a page may not do: load from elsewhere, run into its own policy, ask for a favicon. */
function watch(page) {
  const complaints = [];
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol === "data:") return;
    if (url.origin !== base.origin) complaints.push(`a request to ${url.origin}`);
    if (request.resourceType() !== "document") complaints.push(`a ${request.resourceType()} is loaded: ${url.pathname}`);
  });
  page.on("console", (message) => {
    // The browser notes every refusal (4xx) as an error, and those are meant here.
    const meant = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !meant) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`script error: ${error.message}`));
  return complaints;
}

/** The page as it stands, in every look: nothing that axe finds, nothing wider than the window. */
async function look(page, name) {
  if (!(await hasScript(page))) return;
  await page.evaluate(AXE);
  for (const { name: kind, colorScheme, width, height } of LOOKS) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height });
    const { violations } = await page.evaluate((tags) => globalThis.axe.run(document, { runOnly: tags }), TAGS);
    const found = violations.map(({ id, help, nodes }) => `${id} (${help}): ${nodes.map((node) => node.html).join(" ")}`);
    check(found.length === 0, `axe finds nothing on ${name}, ${kind}`, found);
    const content = await page.evaluate(() => document.documentElement.scrollWidth);
    check(content <= width, `${name} fits ${width} px (${kind})`, content);
    if (SCREENSHOTS) await page.screenshot({ path: join(SCREENSHOTS, `${name}.${kind}.png`), fullPage: true });
  }
  console.log(`ok    ${name}: ${LOOKS.map((kind) => kind.name).join(", ")}`);
}

/** Whether pages may run scripts here: without, a promise inside of a page is never kept, and axe never done. */
async function hasScript(page) {
  return page.evaluate(() => matchMedia("(scripting: enabled)").matches);
}

/** What is at `path`, in this tab. */
async function open(page, path) {
  const response = await page.goto(new URL(path, base).href);
  check(response !== null, `${path} is answered`);
  return response;
}

/** Does `act`, and waits for the document that it leads to, behind all redirects. */
async function follow(page, act) {
  const arrives = page.waitForResponse((response) => {
    const redirect = response.status() >= 300 && response.status() < 400;
    return response.request().isNavigationRequest() && !redirect;
  });
  const [response] = await Promise.all([arrives, act()]);
  await response.finished();
  await page.waitForLoadState("load");
  return response;
}

async function isSignInPage(page, response) {
  check(await page.getByLabel("Password").isVisible(), "a sign-in page is shown", page.url());
  check(await page.getByRole("button", { name: "Sign in" }).isVisible(), "it has a button to sign in");
  if (response) await carriesSecurityHeaders(response);
}

async function carriesSecurityHeaders(response) {
  const headers = await response.allHeaders();
  for (const [name, pattern] of Object.entries(SECURITY)) {
    check(pattern.test(headers[name] ?? ""), `${response.url()} says ${name} ${pattern}`, headers[name]);
  }
}

const focus = (page) => page.evaluate(() => document.activeElement?.id || document.activeElement?.tagName);

async function cookies(page) {
  return page.context().cookies(base.href);
}

async function signInPage(page) {
  await step("a page load without a session leads to the sign-in page", async () => {
    const response = await open(page, "/?from=browser");
    check(response.status() === 200, "status 200", response.status());
    await isSignInPage(page, response);
    check(new URL(page.url()).searchParams.has("next"), "the address has the way back", page.url());
    check((await cookies(page)).length === 0, "no cookie before the sign-in", await cookies(page));
  });
  await step("keyboard and password manager find their way", async () => {
    check((await focus(page)) === "username", "the cursor is in the user name", await focus(page));
    for (const expected of ["password", "remember", "BUTTON"]) {
      await page.keyboard.press("Tab");
      check((await focus(page)) === expected, `the next Tab is ${expected}`, await focus(page));
    }
    const complete = async (label) => page.getByLabel(label).getAttribute("autocomplete");
    check((await complete("User name")) === "username", "autocomplete=username");
    check((await complete("Password")) === "current-password", "autocomplete=current-password");
  });
  await look(page, "sign-in");
}

async function wrongPassword(page) {
  await step("a wrong password is told as such, and no more", async () => {
    await page.getByLabel("User name").fill(USERNAME);
    await page.getByLabel("Password").fill(`${PASSWORD}-wrong`);
    const response = await follow(page, () => page.getByRole("button", { name: "Sign in" }).click());
    check([400, 401, 403].includes(response.status()), "status 400, 401 or 403 (or 429: wait)", response.status());
    await isSignInPage(page, response);
    const alert = page.getByRole("alert");
    check((await alert.count()) === 1 && (await alert.innerText()).trim() !== "", "there is a message");
    check((await page.getByLabel("User name").inputValue()) === USERNAME, "the user name is still there");
    check((await page.getByLabel("Password").inputValue()) === "", "the password is not");
    check((await cookies(page)).length === 0, "no cookie", await cookies(page));
  });
  await look(page, "sign-in-refused");
}

async function signIn(page) {
  await step("the right password leads to where one wanted to go", async () => {
    await page.getByLabel("User name").fill(USERNAME);
    await page.getByLabel("Password").fill(PASSWORD);
    const response = await follow(page, () => page.getByLabel("Password").press("Enter"));
    check(response.status() === 200, "status 200", response.status());
    const { pathname, search } = new URL(page.url());
    check(pathname + search === "/?from=browser", "back at the address asked for", page.url());
    const heading = await page.getByRole("heading", { level: 1 }).innerText();
    check(heading.includes(USERNAME), "the application greets by name", heading);
  });
  await step("the session is one cookie that no script reads, and the application does not get it", async () => {
    const [cookie, ...others] = await cookies(page);
    check(cookie !== undefined && others.length === 0, "one cookie", others.map(({ name }) => name));
    check(cookie.httpOnly, "HttpOnly");
    check(["Lax", "Strict"].includes(cookie.sameSite), "SameSite", cookie.sameSite);
    check(cookie.secure === (base.protocol === "https:"), "Secure under https", cookie.secure);
    check(cookie.expires === -1, "ends with the browser", cookie.expires);
    check(!(await page.content()).includes(cookie.value), "the application does not see its value");
  });
  await look(page, "application");
}

async function refusal(page) {
  await step("a page for others is refused by name, and another account offered", async () => {
    const response = await open(page, "/admin");
    check(response.status() === 403, "status 403 (the user must not be in group admin)", response.status());
    await carriesSecurityHeaders(response);
    const text = await page.getByRole("main").innerText();
    check(text.includes(USERNAME), "it says who is signed in", text);
  });
  await look(page, "refused");
  await step("the other account is asked for at the sign-in page", async () => {
    const response = await follow(page, () => page.getByRole("link", { name: /another account/ }).click());
    await isSignInPage(page, response);
    check(new URL(page.url()).searchParams.get("again") === "1", "again=1", page.url());
    check(new URL(page.url()).searchParams.get("next") === "/admin", "next=/admin", page.url());
  });
  await look(page, "sign-in-again");
  await step("an unknown address is a page too", async () => {
    const response = await open(page, "/.gateway/no-such-page");
    check(response.status() === 404, "status 404", response.status());
    await carriesSecurityHeaders(response);
  });
  await look(page, "not-found");
}

/** Fills the form of a new password and sends it. */
async function setPassword(page, old, next, again = next) {
  await page.getByLabel("Current password").fill(old);
  await page.getByLabel("New password", { exact: true }).fill(next);
  await page.getByLabel("New password, once more").fill(again);
  return follow(page, () => page.getByRole("button", { name: "Change password" }).click());
}

/** Another browser in which the same person is signed in, and what is at its start page. */
async function elsewhere(page) {
  const context = await page.context().browser().newContext({ userAgent: PHONE, ignoreHTTPSErrors: true });
  const other = await context.newPage();
  await open(other, "/");
  await other.getByLabel("User name").fill(USERNAME);
  await other.getByLabel("Password").fill(PASSWORD);
  await other.getByLabel("Keep me signed in").check();
  const response = await follow(other, () => other.getByRole("button", { name: "Sign in" }).click());
  check(response.status() === 200, "signed in on the phone", response.status());
  return other;
}

async function account(page) {
  const phone = await elsewhere(page);
  await step("the application's page leads to one's own account", async () => {
    await open(page, "/");
    const response = await follow(page, () => page.getByRole("link", { name: "Your account" }).click());
    check(response.status() === 200, "status 200", response.status());
    await carriesSecurityHeaders(response);
    const items = page.getByRole("listitem");
    check((await items.count()) >= 2, "both browsers are listed", await items.count());
    check((await items.first().innerText()).includes("This browser"), "this one first, and marked");
    check((await page.getByText("Safari on iPhone").count()) >= 1, "the other one in words");
    const complete = (label) => page.getByLabel(label, { exact: true }).getAttribute("autocomplete");
    check((await complete("Current password")) === "current-password", "autocomplete=current-password");
    check((await complete("New password")) === "new-password", "autocomplete=new-password");
  });
  await look(page, "account");
  await step("ending a session asks for the password first", async () => {
    const end = page.getByRole("button", { name: "End session: Safari on iPhone" }).first();
    const response = await follow(page, () => end.click());
    check(response.status() === 200, "status 200", response.status());
    check((await focus(page)) === "password", "the cursor is in the password", await focus(page));
    await open(phone, "/");
    check((await phone.getByRole("heading", { level: 1 }).innerText()).includes(USERNAME), "nothing is ended yet");
  });
  await look(page, "account-end");
  await step("a wrong password ends nothing, and the right one the session", async () => {
    await page.getByLabel("Your password").fill(`${PASSWORD}-wrong`);
    const refused = await follow(page, () => page.getByLabel("Your password").press("Enter"));
    check(refused.status() === 403, "status 403", refused.status());
    check((await page.getByRole("alert").count()) === 1, "there is a message");
  });
  await look(page, "account-end-refused");
  await step("the right one ends the session", async () => {
    await page.getByLabel("Your password").fill(PASSWORD);
    const response = await follow(page, () => page.getByRole("button", { name: "End session" }).click());
    check(response.status() === 200, "status 200 behind the redirect", response.status());
    check((await page.getByRole("status").innerText()).includes("ended"), "it says so");
    await isSignInPage(phone, await open(phone, "/"));
  });
  await look(page, "account-ended");
  await step("two new passwords that differ change nothing", async () => {
    const response = await setPassword(page, PASSWORD, `${PASSWORD} new`, `${PASSWORD} now`);
    check(response.status() === 422, "status 422", response.status());
    check((await focus(page)) === "password", "the cursor is in the first field", await focus(page));
    check((await page.getByLabel("Current password").inputValue()) === "", "no password comes back");
  });
  await look(page, "account-refused");
  await step("a new password keeps this browser signed in, with a new cookie", async () => {
    const [before] = await cookies(page);
    const response = await setPassword(page, PASSWORD, `${PASSWORD} new`);
    check(response.status() === 200, "status 200 behind the redirect", response.status());
    check((await page.getByRole("status").innerText()).includes("changed"), "it says so");
    const [after] = await cookies(page);
    check(after !== undefined && after.value !== before.value, "another cookie");
    await setPassword(page, `${PASSWORD} new`, PASSWORD);
    check((await page.getByRole("status").innerText()).includes("changed"), "and back again");
  });
  await look(page, "account-changed");
  await phone.context().close();
}

async function apiKeys(page) {
  let key;
  const works = async () => {
    const response = await page.request.get(base.href, { headers: { Authorization: `Bearer ${key}` } });
    return response.status() === 200;
  };
  await step("an API key is named before it is made", async () => {
    await open(page, "/.gateway/account");
    const response = await follow(page, () => page.getByRole("button", { name: "Make an API key" }).click());
    check(response.status() === 200, "status 200", response.status());
    await carriesSecurityHeaders(response);
    check((await focus(page)) === "name", "the cursor is in the name", await focus(page));
    check((await page.getByLabel("It ends").inputValue()) === "90d", "it ends by itself");
  });
  await look(page, "account-new-key");
  await step("a wrong password makes none, and what was typed stays", async () => {
    await page.getByLabel("What is it for?").fill("nightly backup of everything");
    await page.getByLabel("It ends").selectOption("30d");
    await page.getByLabel("Your password").fill(`${PASSWORD}-wrong`);
    const response = await follow(page, () => page.getByRole("button", { name: "Make key" }).click());
    check(response.status() === 403, "status 403", response.status());
    check((await page.getByLabel("What is it for?").inputValue()) === "nightly backup of everything", "the name stays");
    check((await page.getByLabel("It ends").inputValue()) === "30d", "the end stays");
    check((await focus(page)) === "password", "the cursor is in the password", await focus(page));
  });
  await look(page, "account-new-key-refused");
  await step("the key is shown once, and works", async () => {
    await page.getByLabel("Your password").fill(PASSWORD);
    const response = await follow(page, () => page.getByLabel("Your password").press("Enter"));
    check(response.status() === 200, "status 200", response.status());
    check((await response.headerValue("cache-control")) === "no-store", "it is kept nowhere");
    key = await page.getByText(/^pck_/).innerText();
    check(await works(), "the application lets it in");
  });
  await look(page, "account-key-made");
  await step("it is listed by its name, and not shown again", async () => {
    const response = await follow(page, () => page.getByRole("link", { name: "I have copied it" }).click());
    check(!(await response.text()).includes(key), "the key is not on the page");
    check(await page.getByRole("heading", { name: "nightly backup of everything" }).isVisible(), "its name is");
  });
  await look(page, "account-keys");
  await step("revoking it asks for the password first", async () => {
    const button = page.getByRole("button", { name: "Revoke key: nightly backup of everything" });
    await follow(page, () => button.click());
    check((await focus(page)) === "password", "the cursor is in the password", await focus(page));
    check(await works(), "nothing is revoked yet");
  });
  await look(page, "account-revoke");
  await step("the right password revokes it", async () => {
    await page.getByLabel("Your password").fill(PASSWORD);
    const response = await follow(page, () => page.getByRole("button", { name: "Revoke key" }).click());
    check(response.status() === 200, "status 200 behind the redirect", response.status());
    check((await page.getByRole("status").innerText()).includes("revoked"), "it says so");
    check(!(await works()), "the application does not let it in any more");
  });
  await look(page, "account-key-revoked");
}

async function signOut(page) {
  await step("a link to sign out shows a button, and signs nobody out", async () => {
    const response = await open(page, "/logout");
    check(response.status() === 200, "status 200", response.status());
    check(await page.getByRole("button", { name: "Sign out" }).isVisible(), "there is a button");
    await carriesSecurityHeaders(response);
  });
  await look(page, "sign-out");
  await step("signing out in the application ends the session", async () => {
    await open(page, "/");
    const stale = await cookies(page);
    check(stale.length === 1, "still signed in before", stale.length);
    const response = await follow(page, () => page.getByRole("button", { name: "Sign out" }).click());
    check(response.status() === 200, "status 200 behind the redirect", response.status());
    check((await cookies(page)).length === 0, "the cookie is gone", await cookies(page));
    await isSignInPage(page, await open(page, "/"));
    await page.context().addCookies(stale);
    await isSignInPage(page, await open(page, "/"));
  });
}

async function drive(browser, javaScriptEnabled, parts) {
  // Without motion: axe would measure colours halfway between light and dark.
  const context = await browser.newContext({ javaScriptEnabled, ignoreHTTPSErrors: true, reducedMotion: "reduce" });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  const complaints = watch(page);
  try {
    for (const part of parts) {
      await part(page);
      check(complaints.length === 0, `${part.name}: pages load nothing and keep their own policy`, complaints);
    }
  } catch (error) {
    const file = SCREENSHOTS && join(SCREENSHOTS, "failure.png");
    if (file) await page.screenshot({ path: file }).catch(() => {});
    error.message += `\n      at ${page.url()}${file ? `, see ${file}` : ""}`;
    throw error;
  } finally {
    await context.close();
  }
}

async function main() {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
  // What runs inside of a page has no time limit of its own.
  const deadline = setTimeout(() => {
    console.error(`FAIL  not done within ${DEADLINE / 1000} s, after the last step above`);
    process.exitCode = 1;
    browser.close();
  }, DEADLINE);
  try {
    await drive(browser, true, [signInPage, wrongPassword, signIn, refusal, account, apiKeys, signOut]);
    console.log("once more without JavaScript");
    await drive(browser, false, [signInPage, signIn, refusal, account, apiKeys, signOut]);
  } catch (error) {
    if (!process.exitCode) console.error(`FAIL  ${error instanceof Failure ? error.message : (error.stack ?? error)}`);
    process.exitCode = 1;
  } finally {
    clearTimeout(deadline);
    await browser.close();
  }
}

const missing = Object.entries({ GATEWAY_URL, USERNAME, PASSWORD, CHROMIUM }).filter(([, value]) => !value);
if (missing.length > 0) {
  console.error(`set ${missing.map(([name]) => name).join(", ")}`);
  process.exit(2);
}
const base = new URL(GATEWAY_URL);
if (SCREENSHOTS) mkdirSync(SCREENSHOTS, { recursive: true });
await main();
if (!process.exitCode) console.log("all is well");
