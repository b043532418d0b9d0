// The fields of the form: what each is called, what may be entered, and where it counts.
const whole = (text) => (/^\d+$/.test(text) ? "" : "a whole number, 0 or more");
const seconds = (least) => (text) => (text !== "" && Number(text) >= least ? "" : `a number of seconds${least ? " above 0" : ", 0 or more"}`);
const address = (text) => (/^(https?:\/\/.|env:)/.test(text) ? "" : "begins with http:// or https://, or is env:NAME");
const addresses = (text) => (text.split(/[\s,]+/).filter(Boolean).every((one) => /^[^@\s]+@[^@\s]+$/.test(one)) ? "" : "addresses such as ann@example.org, with commas between them");

export const SECTIONS = [
  {
    title: "Cluster",
    fields: [
      { name: "cluster", label: "Cluster", hint: "or tcp://host:8786", placeholder: "embedded" },
      { name: "workers", label: "Workers", placeholder: "all there are", check: whole },
      { name: "gpus", label: "GPUs per worker", placeholder: "0", check: whole },
    ],
  },
  {
    title: "When it fails or hangs",
    fields: [
      { name: "retries", label: "Retries", placeholder: "0", check: whole },
      { name: "backoff", label: "Retry after (s)", hint: "then twice as long", placeholder: "30", check: seconds(0) },
      { name: "timeout", label: "Timeout (s)", hint: "of one attempt", placeholder: "none", check: seconds(1e-9) },
    ],
  },
  {
    title: "When it is due",
    scheduled: true,
    fields: [
      { name: "concurrency", label: "If one still runs", choices: { "": "run both", forbid: "skip the new", replace: "stop the old" } },
      { name: "missed", label: "Missed fire times", choices: { "": "run the latest", skip: "skip", "catch-up": "run each" } },
      { name: "grace", label: "Missed after (s)", placeholder: "60", check: seconds(0) },
    ],
  },
  {
    title: "Who hears of its end",
    fields: [
      { name: "email", label: "E-mail", check: addresses },
      { name: "webhook", label: "Webhook", placeholder: "https://", check: address },
      {
        name: "notify_on",
        label: "Told of",
        choices: { "": "failures", success: "successes", "failure success": "both", "failure success stopped": "every end" },
        needs: ["email", "webhook"],
      },
    ],
  },
];

// What is wrong with the values, by field.
export function problems(values) {
  const found = {};
  for (const field of SECTIONS.flatMap((section) => section.fields)) {
    const text = String(values[field.name] ?? "").trim();
    if (!text) continue;
    if (field.check?.(text)) found[field.name] = field.check(text);
    if (field.needs && !field.needs.some((name) => values[name])) found[field.name] = `needs ${field.needs.join(" or ")}`;
  }
  return found;
}
