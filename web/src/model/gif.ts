/** Counts the pictures in a GIF file: an animated one is a clip. */

const HEADER = 13;
const EXTENSION = 0x21;
const PICTURE = 0x2c;

/** The number of pictures; 0 if the file is not a GIF. */
export function countPictures(bytes: Uint8Array): number {
  if (String.fromCharCode(...bytes.subarray(0, 4)) !== "GIF8") return 0;
  let at = HEADER + colours(bytes[10]);
  let pictures = 0;
  while (at < bytes.length) {
    if (bytes[at] === PICTURE) {
      pictures += 1;
      at = afterBlocks(bytes, at + 11 + colours(bytes[at + 9]));
    } else if (bytes[at] === EXTENSION) {
      at = afterBlocks(bytes, at + 2);
    } else break;
  }
  return pictures;
}

/** The bytes of the table of colours that these flags announce. */
function colours(flags = 0): number {
  return flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0;
}

function afterBlocks(bytes: Uint8Array, from: number): number {
  let at = from;
  for (let size = bytes[at]; size; size = bytes[at]) at += size + 1;
  return at + 1;
}
