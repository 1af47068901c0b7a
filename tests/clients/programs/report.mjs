// What a program says of its client: one line of JSON for each capability.
function say(capability, works, reason = "") {
  console.log(JSON.stringify({ capability, works, reason }));
}

export async function check(capability, call) {
  try {
    await call();
    say(capability, true);
  } catch (error) {
    const body = error.body ? ` ${JSON.stringify(error.body)}` : "";
    say(capability, false, `${error.name}: ${error.message}${body}${error.cause ? ` (${error.cause})` : ""}`);
  }
}

export function lacks(...capabilities) {
  for (const capability of capabilities) say(capability, null);
}

export function expect(condition, what) {
  if (!condition) throw new Error(`unexpected: ${JSON.stringify(what)}`);
}
