// A child of a program whose environment holds only what it inherits.
process.send(await (await fetch("https://queue.fal.run/a")).text());
process.disconnect();
