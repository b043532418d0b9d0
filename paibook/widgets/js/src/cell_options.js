// The options of a %%pai_* cell, written into its first line where the front end lets a widget reach its editor.
const MAGIC = /^%%pai_(allreduce|ps)\b.*/;
const OURS = /\s(?:(?:-n|--workers|-g|--gpus|--cards|--gpu-share)(?:\s+|=)\S+|-[ng]\d+)(?=\s|$)/g;

// The cells in the page that take them, in the page's order: what each says, and a function that writes its first line.
export function cells() {
  const found = [];
  for (const node of document.querySelectorAll(".jp-CodeCell .cm-content")) {
    // CodeMirror keeps its view on the node it draws into, under one of these names.
    const part = node.cmTile ?? node.cmView;
    const view = (part?.root ?? part?.rootView)?.view;
    const line = view?.state?.doc.line(1);
    if (!line || !MAGIC.test(line.text)) continue;
    found.push({
      node,
      text: line.text,
      write: (options) => {
        const first = view.state.doc.line(1);
        view.dispatch({ changes: { from: first.from, to: first.to, insert: withOptions(first.text, options) } });
      },
    });
  }
  return found;
}

export function withOptions(line, options) {
  const [magic, ...rest] = line.split(/(?=\s)/);
  return `${magic} ${options}${rest.join("").replace(OURS, "").trimEnd()}`;
}
