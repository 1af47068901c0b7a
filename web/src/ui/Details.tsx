import "../style/details.css";
import { type Given, listOf, nameOfLora, placeOf, shown } from "../model/described";
import { nameOf } from "../model/entries";
import { facts } from "../model/draft";
import type { VideoRequest } from "../server/requests";
import { titleOf } from "../model/titles";
import { Thumb } from "./Thumb";

const LISTS = new Set(["prompt", "images", "videos", "loras"]);

/** All settings and inputs of a request. What it did not set has the schema's default. */
export function Details({ request }: { request: VideoRequest }) {
  const given: Given = { ...request.input, seed: request.seed };
  const fields = Object.entries(facts.value?.schema.fields ?? {}).filter(([name]) => !LISTS.has(name));
  return (
    <div class="details">
      <Inputs given={given} />
      <dl>
        {fields.map(([name, field]) => (
          <div key={name} class={name in given ? "" : "default"}>
            <dt>{titleOf(name)}</dt>
            <dd>{shown(given[name] ?? field.default)}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function Inputs({ given }: { given: Given }) {
  const pictures = listOf(given.images).map((each) => ({ kind: "image" as const, url: String(each.image_url), each }));
  const clips = listOf(given.videos).map((each) => ({ kind: "video" as const, url: String(each.video_url), each }));
  const loras = listOf(given.loras);
  if (!pictures.length && !clips.length && !loras.length) return <p class="hint">No pictures, clips or LoRAs.</p>;
  return (
    <ul class="inputs" aria-label="Inputs">
      {[...pictures, ...clips].map(({ kind, url, each }, index) => (
        <li key={index}>
          <span class="input-thumb">
            <Thumb item={{ kind, name: nameOf(url), url, local: null }} />
          </span>
          <span class="file-name" title={url}>
            {nameOf(url)}
          </span>
          <span class="note">{placeOf(each)}</span>
        </li>
      ))}
      {loras.map((each, index) => (
        <li key={`lora ${index}`}>
          <span class="file-name" title={String(each.path)}>
            {nameOfLora(each)}
          </span>
          <span class="note">LoRA, scale {shown(each.scale ?? 1)}</span>
        </li>
      ))}
    </ul>
  );
}
