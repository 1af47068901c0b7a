/** Counts the frames of a clip by parsing its file, because browsers report only the duration. */

const CONTAINERS = new Set(["moov", "trak", "mdia", "minf", "stbl"]);
const GUESSED_RATE = 25;

export interface ClipFacts {
  readonly frames: number;
  /** False if `frames` was estimated from the duration. */
  readonly exact: boolean;
}

export interface Box {
  readonly type: string;
  readonly start: number;
  readonly end: number;
}

export async function clipFacts(file: Blob, seconds: number): Promise<ClipFacts> {
  const counted = await countSamples(file).catch(() => null);
  if (counted) return { frames: counted, exact: true };
  return { frames: Math.max(1, Math.round(seconds * GUESSED_RATE)), exact: false };
}

/** The number of samples in the first video track of an MP4 or MOV file; null if there is none. */
export async function countSamples(file: Blob): Promise<number | null> {
  for await (const box of boxes(file, 0, file.size)) {
    if (box.type !== "moov") continue;
    for await (const track of boxes(file, box.start, box.end)) {
      const facts = track.type === "trak" ? await readTrack(file, track) : null;
      if (facts?.handler === "vide") return facts.samples || null;
    }
  }
  return null;
}

async function readTrack(file: Blob, track: Box): Promise<{ handler: string; samples: number }> {
  const facts = { handler: "", samples: 0 };
  for await (const box of boxes(file, track.start, track.end)) {
    if (CONTAINERS.has(box.type)) {
      const inner = await readTrack(file, box);
      facts.handler ||= inner.handler;
      facts.samples ||= inner.samples;
    } else if (box.type === "hdlr") {
      facts.handler = text(await view(file, box.start + 8, 4), 0);
    } else if (box.type === "stsz") {
      facts.samples = (await view(file, box.start + 8, 4)).getUint32(0);
    }
  }
  return facts;
}

/** The boxes of an MP4 file between two places. */
export async function* boxes(file: Blob, from: number, to: number): AsyncGenerator<Box> {
  for (let at = from; at + 8 <= to; ) {
    const head = await view(file, at, 16);
    const short = head.getUint32(0);
    const [size, header] = short === 1 ? [Number(head.getBigUint64(8)), 16] : [short || to - at, 8];
    if (size < header) return;
    yield { type: text(head, 4), start: at + header, end: Math.min(at + size, to) };
    at += size;
  }
}

export async function view(file: Blob, at: number, size: number): Promise<DataView> {
  return new DataView(await file.slice(at, at + size).arrayBuffer());
}

function text(bytes: DataView, at: number): string {
  return String.fromCharCode(...Array.from({ length: 4 }, (_, index) => bytes.getUint8(at + index)));
}
