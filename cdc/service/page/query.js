// A box that asks the published copy, shown where the process answers queries.

const MOST_ROWS = 500; // that are shown

export class QueryBox {
  constructor(section) {
    this.section = section;
    this.text = section.querySelector("textarea");
    this.answer = section.querySelector("#answer");
    this.button = section.querySelector("button");
    section.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.run();
    });
  }

  offer(path) {
    this.path = path;
    this.section.hidden = path === null;
  }

  async run() {
    if (this.button.disabled || !this.text.value.trim()) return;
    this.button.disabled = true;
    try {
      this.answer.replaceChildren(await this.ask(this.text.value));
    } catch {
      this.answer.replaceChildren(failure("The process does not answer."));
    } finally {
      this.button.disabled = false;
    }
  }

  async ask(sql) {
    const response = await fetch(this.path, { method: "POST", headers: { "Content-Type": "application/json", Accept: "application/json" }, body: JSON.stringify({ sql }) });
    const found = await response.json();
    return response.ok ? grid(found) : failure(found.message ?? response.statusText);
  }
}

function failure(text) {
  const node = document.createElement("p");
  node.className = "failure";
  node.setAttribute("role", "alert");
  node.textContent = text;
  return node;
}

function grid({ columns, rows }) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows.slice(0, MOST_ROWS)) {
    const line = body.insertRow();
    for (const value of row) line.insertCell().textContent = value === null ? "NULL" : typeof value === "object" ? JSON.stringify(value) : value;
  }
  const caption = table.createCaption();
  caption.textContent = rows.length > MOST_ROWS ? `The first ${MOST_ROWS} of ${rows.length} rows` : `${rows.length} rows`;
  return table;
}
