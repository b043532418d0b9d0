// The form itself, in the dialog's own look. What is entered goes into the request's runtime_environment_parameters, as
// text: the server says what kind each is.
import { SECTIONS, problems } from "./fields.js";

const NOT_OURS = "The server's scheduler is not paibook's, so only tags apply. docs/jobs.md says how it is set.";

export function form({ React, mui, JobsView, isOurs }) {
  const h = React.createElement;
  const { Alert, Box, FormLabel, MenuItem, Stack, TextField } = mui;

  return function AdvancedOptions({ jobsView, model, handleModelChange, errors, handleErrorsChange }) {
    const [ours, setOurs] = React.useState(null);
    React.useEffect(() => {
      isOurs().then(setOurs, () => setOurs(false));
    }, []);
    const editing = jobsView === JobsView.CreateForm;
    const scheduled = editing ? model.createType === "JobDefinition" : jobsView === JobsView.JobDefinitionDetail;
    const values = model.runtimeEnvironmentParameters ?? {};

    const set = (name, value) => {
      const { [name]: _, ...others } = values;
      const now = value === "" ? others : { ...others, [name]: value };
      handleModelChange({ ...model, runtimeEnvironmentParameters: now });
      handleErrorsChange(problems(now));
    };

    const text = (field) =>
      h(TextField, {
        ...common(field.name, field.label, errors[field.name], field.hint),
        value: String(values[field.name] ?? ""),
        placeholder: field.placeholder,
        onChange: (event) => set(field.name, event.target.value),
      });

    const choice = (field) =>
      h(
        TextField,
        {
          ...common(field.name, field.label, errors[field.name], field.hint),
          select: true,
          SelectProps: { displayEmpty: true },
          value: String(values[field.name] ?? ""),
          onChange: (event) => set(field.name, event.target.value),
        },
        Object.entries(field.choices).map(([value, words]) => h(MenuItem, { key: value, value }, words)),
      );

    const common = (name, label, problem, hint) => ({
      key: name,
      id: `pai-option-${name}`,
      name,
      label,
      variant: "outlined",
      error: Boolean(problem),
      helperText: problem || hint || "",
      disabled: !editing,
      InputLabelProps: { shrink: true },
      sx: { flex: "1 1 140px" },
    });

    const shown = SECTIONS.filter((section) => scheduled || !section.scheduled);
    const sections = shown.map((section) =>
      h(Box, { key: section.title }, [
        h(FormLabel, { key: "title", component: "legend", sx: { mb: 2 } }, section.title),
        h(Stack, { key: "fields", direction: "row", gap: 2, flexWrap: "wrap" }, section.fields.map((field) => (field.choices ? choice(field) : text(field)))),
      ]),
    );
    const tags = h(TextField, {
      ...common("tags", "Tags", "", "with commas between them"),
      sx: { width: "100%" },
      value: (model.tags ?? []).join(","),
      onChange: (event) => handleModelChange({ ...model, tags: event.target.value ? event.target.value.split(",") : [] }),
    });
    return h(Stack, { spacing: 3, className: "pai-options" }, [
      ours === false && h(Alert, { key: "not", severity: "info" }, NOT_OURS),
      ...(ours ? sections : []),
      tags,
    ]);
  };
}
