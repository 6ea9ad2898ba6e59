// Latchkey in front of node:http, Express or Connect: copy this file. README.md says the rest.
import { STATUS_CODES } from "node:http";

const TYPE = { "Content-Type": "application/problem+json", "Cache-Control": "no-store" };
const reports = [], reportAll = () => reports.forEach((report) => report());
const warn = (what, error) => console.warn(`latchkey: ${what}: ${error.cause?.code ?? error.name}`);
setInterval(reportAll, 1000).unref();
process.once("beforeExit", reportAll);

// All values of a header, of which `req.headers` drops some where it is repeated.
const values = ({ rawHeaders }, wanted) => rawHeaders
  .filter((_, i) => i % 2 && rawHeaders[i - 1].toLowerCase() === wanted)
  .flatMap((value) => value.split(",")).map((value) => value.trim());

// A middleware (req, res, next). `permissions` that a request needs: an array, or a function of it.
export function latchkey({ permissions = [], project, environment, timeout = 2000, ...own } = {}) {
  const { url = process.env.LATCHKEY_URL, key = process.env.LATCHKEY_KEY } = own;
  if (!url || !key) throw new Error("Set LATCHKEY_URL and LATCHKEY_KEY.");
  const base = url.replace(/\/+$/, ""), outcomes = [];
  let reporting = Promise.resolve();
  const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };

  async function post(path, content) {
    // No redirect is followed: where it leads is not to learn a key.
    const request = { method: "POST", headers, body: JSON.stringify(content), redirect: "error" };
    const answer = await fetch(base + path, { ...request, signal: AbortSignal.timeout(timeout) });
    if (answer.status !== 200) throw new Error("", { cause: { code: `status ${answer.status}` } });
    const rates = [...answer.headers].filter(([name]) => name.includes("ratelimit"));
    return [{ __proto__: null, ...(await answer.json()) }, rates]; // what it lacks is not inherited
  }

  // A verdict and headers for the client; where Latchkey gives none, a refusal of our own.
  async function ask(req) {
    const tokens = values(req, "authorization").map((value) => /^bearer +(.*)/i.exec(value)?.[1]);
    const keys = [...new Set([...tokens, ...values(req, "x-api-key")])].filter(Boolean);
    if (keys.length > 1) return [{ valid: false, status: 400, code: "INVALID" }, []];
    const ip = (req.ip ?? req.socket.remoteAddress)?.split("%")[0]; // Express: by its `trust proxy`
    const path = (req.originalUrl ?? req.url).split("?")[0], user_agent = req.headers["user-agent"];
    const asked = { key: keys.join("").slice(0, 512), method: req.method, path, ip, user_agent };
    const needs = typeof permissions === "function" ? await permissions(req) : permissions;
    const question = { ...asked, permissions: [...needs], project, environment };
    const [verdict, told] = await post("/api/v1/verify", question);
    const { valid, status, code, request_id } = verdict;
    const isVerdict = valid === true || (valid === false && [401, 403, 429].includes(status));
    if (!isVerdict || !code || !request_id) throw new Error("not a verdict");
    const error = keys.length ? ', error="invalid_token"' : "";
    if (status === 401) told.push(["WWW-Authenticate", `Bearer realm="latchkey"${error}`]);
    const seconds = Math.ceil(verdict.rate_limit?.reset - Date.now() / 1000);
    if (code === "RATE_LIMITED") told.push(["Retry-After", Math.max(1, seconds || 1)]);
    return [verdict, told];
  }
  const unavailable = (error) => {
    warn("no verdict", error);
    return [{ valid: false, status: 503, code: "UNAVAILABLE" }, [["Retry-After", 1]]];
  };
  const report = async () => {
    for (let batch; (batch = outcomes.splice(0, 1000)).length; )
      await post("/api/v1/audit-log/outcomes", batch).catch((error) => warn("no outcomes", error));
  };
  reports.push(() => (reporting = reporting.then(report)));

  return async function check(req, res, next) {
    const [verdict, told] = await ask(req).catch(unavailable);
    if (res.headersSent) return; // a time limit of the app's own was quicker
    for (const [name, value] of told) res.setHeader(name, value);
    const { valid, status, code, request_id, missing_permissions } = verdict;
    const problem = { status, title: STATUS_CODES[status], code, request_id, missing_permissions };
    if (valid !== true) return res.writeHead(status, TYPE).end(JSON.stringify(problem));
    req.latchkey = verdict;
    const began = performance.now();
    res.once("close", () => {
      const latency_ms = Math.round(performance.now() - began);
      if (res.headersSent && outcomes.length < 10_000)
        outcomes.push({ request_id, status: res.statusCode, latency_ms });
      if (outcomes.length === 100) reportAll();
    });
    next();
  };
}
