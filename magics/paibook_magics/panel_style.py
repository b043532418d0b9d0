"""How panels look: in JupyterLab's own colours, light or dark, and readable wherever a notebook is shown."""

from __future__ import annotations

from html import escape

# Each output brings its style along: a saved notebook is a set of outputs, and any of them may be cleared or copied.
STYLE = """<style>
.pai-run {
  --pai-ink: var(--jp-content-font-color1, #1f2328);
  --pai-muted: var(--jp-content-font-color2, #656d76);
  --pai-line: var(--jp-border-color2, #d8dee4);
  --pai-track: rgba(128, 128, 128, 0.18);
  --pai-brand: var(--jp-brand-color1, #1976d2);
  --pai-good: var(--jp-success-color1, #388e3c);
  --pai-warn: var(--jp-warn-color0, #b45309);
  color: var(--pai-ink);
  font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif);
  padding: 4px 0;
}
[data-jp-theme-light="false"] .pai-run { --pai-warn: var(--jp-warn-color1, #f59e5b); }
.pai-run table.pai-stages, .pai-run table.pai-table {
  table-layout: auto; width: auto; margin: 0; border: 0; border-collapse: collapse; font-size: inherit;
}
.pai-run.pai-run table tbody tr:nth-child(n), .pai-run.pai-run table thead tr { background: none; }
.pai-run.pai-run table th, .pai-run.pai-run table td {
  padding: 1px 0 1px 16px; border: 0; text-align: left; white-space: nowrap;
  font-weight: normal; vertical-align: middle;
}
.pai-run.pai-run table th:first-child, .pai-run.pai-run table td:first-child { padding-left: 0; }
.pai-run.pai-run table.pai-stages th { font-weight: 600; }
.pai-run.pai-run table td.pai-badges { white-space: normal; }
.pai-run.pai-run table .pai-number, .pai-run.pai-run table.pai-table td, .pai-run.pai-run table.pai-table th {
  text-align: right; font-family: var(--jp-code-font-family, monospace); font-size: 12px;
}
.pai-run.pai-run table.pai-table thead th { color: var(--pai-muted); font-family: inherit; }
.pai-run.pai-run table.pai-table .pai-text {
  text-align: left; max-width: 30em; overflow: hidden; text-overflow: ellipsis;
}
.pai-run.pai-run .pai-waiting th, .pai-run.pai-run .pai-waiting td { color: var(--pai-muted); }
.pai-run .pai-bar {
  position: relative; width: 160px; height: 8px; border-radius: 4px; overflow: hidden; background: var(--pai-track);
}
.pai-run .pai-full, .pai-run .pai-begun { position: absolute; left: 0; top: 0; height: 100%; }
.pai-run .pai-full { background: var(--pai-brand); }
.pai-run .pai-begun { background: var(--pai-brand); opacity: 0.3; }
.pai-run .pai-done .pai-full { background: var(--pai-good); }
.pai-run .pai-badge {
  display: inline-block; padding: 0 7px; border: 1px solid currentColor; border-radius: 9px;
  font-size: 11px; line-height: 16px; white-space: nowrap; color: var(--pai-muted);
}
.pai-run .pai-retried { color: var(--pai-warn); }
.pai-run .pai-backups { color: var(--pai-brand); }
.pai-run .pai-counters, .pai-run .pai-note, .pai-run .pai-bad { margin-top: 2px; }
.pai-run .pai-counters { font-family: var(--jp-code-font-family, monospace); font-size: 12px; color: var(--pai-muted); }
.pai-run .pai-note { color: var(--pai-muted); }
.pai-run .pai-bad { color: var(--pai-warn); }
.pai-run details > summary { cursor: pointer; width: max-content; max-width: 100%; }
.pai-run details h4 { margin: 8px 0 2px; font-size: 12px; font-weight: 600; color: var(--pai-muted); }
</style>"""


def framed(body: str, note: str = "") -> str:
    """A picture's HTML in its frame, with a last line."""
    below = f'<div class="pai-note">{escape(note)}</div>' if note else ""
    return f'{STYLE}<div class="pai-run">{body}{below}</div>'


def folded(line: str, opened: bool, body: str, hint: str = "") -> dict[str, str]:
    """What is left of a run that has ended, as a MIME bundle: a line that opens into its picture.

    Args:
        line: Also the text.
        opened: Whether it is open at first.
        hint: What else there is to see of the run, behind the line.
    """
    how = " open" * opened
    more = f'<div class="pai-note">{escape(hint)}</div>' if hint else ""
    html = framed(f"<details{how}><summary>{escape(line)}</summary>{body}{more}</details>")
    return {"text/plain": line, "text/html": html}
