// What the page says, from what the process says: numbers, times, and the one word for how a pipeline is.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const exact = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = (number) => (number == null ? "" : whole.format(number));

export const some = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function bytes(number) {
  if (number == null) return "not known";
  const step = Math.min(4, Math.floor(Math.log(Math.max(number, 1)) / Math.log(1000)));
  return `${step ? exact.format(number / 1000 ** step) : whole.format(number)} ${["B", "kB", "MB", "GB", "TB"][step]}`;
}

// How far behind something is: below ten seconds, tenths count.
export const lag = (seconds) => (seconds != null && seconds >= 0.05 && seconds < 9.95 ? `${seconds.toFixed(1)} s` : duration(seconds));

export function duration(seconds) {
  if (seconds == null) return "not known";
  if (seconds < 90) return `${whole.format(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.round(seconds / 3600);
  if (hours < 36) return minutes < 600 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${hours} h`;
  return some(Math.round(seconds / 86400), "day");
}

export const ago = (then, now) => (now - then < 5 ? "just now" : `${duration(now - then)} ago`);

export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

export const day = (at) => new Date(at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short" });

export function rate(number) {
  if (!number) return "0";
  return number < 10 ? number.toFixed(1) : whole.format(number);
}

const KINDS = { postgresql: "PostgreSQL", mysql: "MySQL", mariadb: "MariaDB" };

export function origin({ name, origin: { kind, database } }) {
  return `${name}: ${KINDS[kind] ?? kind}${database ? ` ${database}` : ""}`;
}

const DOING = {
  opening: "Opening",
  copying: "Copying tables",
  streaming: "Following the log",
  waiting: "Waiting to try again",
  stopped: "Nothing: it has stopped",
};

export const doing = (report) => DOING[report.phase] ?? report.phase ?? "Opening";

// The kind and the word of a table's state. A table is followed only while the log is.
export function standing(table, report) {
  const isIdle = !report.running || report.phase === "waiting" || report.phase === "opening";
  if (table.state === "following" && isIdle) return ["none", report.running ? "waiting" : "stopped"];
  return STATES[table.state] ?? ["none", table.state];
}

const STATES = {
  following: ["good", "following"],
  copying: ["busy", "copying"],
  suspect: ["care", "being compared"],
  held: ["bad", "held"],
  "left out": ["none", "left out"],
};

export const differing = (report) => Object.entries(report.verification?.different ?? {});

// How a pipeline is: its kind (a class that has a colour and an icon), a word, and a sentence.
export function verdict(report) {
  const states = Object.values(report.tables).map((table) => table.state);
  const of = (state) => states.filter((other) => other === state).length;
  const followed = states.length - of("left out");
  if (!report.running) return ["bad", "Stopped", [report.failure, report.remedy].filter(Boolean).join(" ")];
  if (report.problems.length) {
    const only = report.problems.length === 1 && of("held");
    const word = only ? `${some(of("held"), "table")} held` : "Needs attention";
    return ["bad", word, report.problems.length === 1 ? report.problems[0] : `${report.problems.length} things are wrong.`];
  }
  if (report.phase === "opening") return ["busy", "Opening", "It connects to the source and the target."];
  if (report.phase === "waiting") return ["care", "Trying again", report.failure ?? ""];
  if (of("copying")) {
    const there = followed - of("copying");
    return ["busy", "Copying", `${count(there)} of ${some(followed, "table")} ${there === 1 ? "is" : "are"} complete.`];
  }
  if (of("suspect"))
    return ["care", `Checking ${some(of("suspect"), "table")}`, "Rows may have changed without an event. They are compared with the source."];
  if (!followed) return ["none", "No tables", "The pipeline follows no table yet."];
  return ["good", "All is well", `${followed === 1 ? "The table follows" : `All ${count(followed)} tables follow`} the source.`];
}
