// The plugin: jupyter-scheduler asks for this token, and draws the component in its dialog and its detail views.
import { form } from "./form.js";

export function advancedOptions(scheduler, services, mui, React) {
  return {
    id: "paibook-lab:advanced-options",
    description: "Options of paibook's jobs in the dialog of notebook jobs.",
    autoStart: true,
    provides: scheduler.Scheduler.IAdvancedOptions,
    activate: () => form({ React, mui, JobsView: scheduler.JobsView, isOurs: once(() => isOurs(services.ServerConnection)) }),
  };
}

// Whether the server's scheduler is paibook's; another would keep these options and use none of them.
async function isOurs(connection) {
  const settings = connection.makeSettings();
  const answer = await connection.makeRequest(`${settings.baseUrl}scheduler/runtime_environments`, {}, settings);
  const environments = answer.ok ? await answer.json() : [];
  return environments.some((environment) => environment.metadata?.scheduler === "paibook");
}

function once(work) {
  let asked = null;
  return () => (asked ??= work());
}
