import { useSignal } from "@preact/signals";
import { ratioOf } from "../model/canvas";
import { isOffered, offeredOptions } from "../model/abilities";
import { problems, rules, setValue, shape, value } from "../model/draft";
import { seconds } from "../model/format";
import { parseSeed } from "../model/seed";
import { titleOf } from "../model/titles";
import { type Seed as SeedValue, requests } from "../server/requests";
import type { Field as SchemaField } from "../server/schema";
import type { Facts } from "../server/session";
import { Button, Choice, Field, NumberInput, Select, Slider, Switch } from "./controls";

/** Fields that have their own controls. */
const PLACED = new Set(["prompt", "images", "videos", "loras", "seed", "negative_prompt"]);
/** The most options that fit side by side. */
const SIDE_BY_SIDE = 4;
/** Fields that are always visible; the other fields of the schema are under More. */
const MAIN = ["aspect_ratio", "resolution", "number_of_frames", "frame_rate", "number_of_steps"];
export function Settings({ facts }: { facts: Facts }) {
  const fields = Object.entries(facts.schema.fields).filter(([name]) => !PLACED.has(name) && isOffered(name));
  const others = fields.filter(([name]) => !MAIN.includes(name));
  return (
    <section class="card settings" aria-label="Settings">
      {MAIN.map((name) => {
        const field = facts.schema.fields[name];
        return field && <SchemaControl key={name} name={name} field={field} />;
      })}
      <Seed />
      <details>
        <summary>More</summary>
        <div class="more">
          {isOffered("negative_prompt") && <NegativePrompt />}
          {others.map(([name, field]) => (
            <SchemaControl key={name} name={name} field={field} />
          ))}
        </div>
      </details>
    </section>
  );
}

function SchemaControl({ name, field }: { name: string; field: SchemaField }) {
  const label = titleOf(name);
  const problem = problems.value.get(name);
  const onChange = (chosen: unknown) => setValue(name, chosen);
  if (field.enum) {
    const chosen = value<string | null>(name);
    const able = offeredOptions(name, field.enum);
    const options = field.default === undefined || field.default === null ? ["default", ...able] : able;
    const pick = (option: string) => onChange(option === "default" ? null : option);
    if (options.length > SIDE_BY_SIDE) return <Select label={label} value={chosen ?? "default"} onChange={pick} {...{ options, problem }} />;
    const draw = name === "aspect_ratio" ? (option: string) => <Outline aspect={option} /> : undefined;
    const note = notes(name);
    return (
      <Choice label={label} value={chosen ?? "default"} onChange={pick} {...{ options, problem }} {...(draw ? { draw } : {})} {...(note ? { note } : {})} />
    );
  }
  if (field.type === "boolean") {
    return <Switch label={label} hint={field.description} checked={value(name)} {...{ problem, onChange }} />;
  }
  const { minimum, maximum } = field;
  if (minimum === undefined || maximum === undefined) return null;
  if (field.default === undefined || field.default === null) {
    return (
      <Field label={label} problem={problem}>
        {(ids) => <NumberInput {...ids} min={minimum} max={maximum} step={step(field)} value={value(name)} placeholder="server default" onChange={onChange} />}
      </Field>
    );
  }
  const note = notes(name);
  return <Slider label={label} step={step(field)} value={value(name)} min={minimum} max={maximum} {...(note ? { note } : {})} {...{ problem, onChange }} />;
}

function step({ type }: SchemaField): number {
  return type === "integer" ? 1 : 0.05;
}

function notes(name: string): string | null {
  if (name === "number_of_frames") return seconds(rules.value.frames / value<number>("frame_rate"));
  if (name === "aspect_ratio" && shape.value) {
    const { aspect, width, height } = shape.value;
    return `${value("aspect_ratio") === aspect ? "" : `${aspect}, `}${width} × ${height}`;
  }
  return null;
}

/** Draws the aspect ratio as a rectangle. */
function Outline({ aspect }: { aspect: string }) {
  if (!aspect.includes(":")) return <i class="outline auto" />;
  const [width, height] = ratioOf(aspect);
  const scale = 16 / Math.max(width, height);
  return <i class="outline" style={{ width: `${width * scale}px`, height: `${height * scale}px` }} />;
}

/** While the field is empty, the server draws a new seed for each video. */
function Seed() {
  const seed = value<SeedValue | null>("seed");
  const last = requests.value[0]?.seed ?? null;
  const typed = useSignal<string | null>(null);
  const set = (chosen: SeedValue | null) => setValue("seed", chosen);
  const isWrong = typed.value !== null && typed.value.trim() !== "" && parseSeed(typed.value) === null;
  const take = () => {
    if (typed.value !== null && !isWrong) set(parseSeed(typed.value));
    typed.value = null;
  };
  return (
    <Field
      label="Seed"
      problem={isWrong ? "A seed is a whole number from -2^63 to 2^63 - 1." : problems.value.get("seed")}
      aside={<span class="note">{seed === null ? "new each time" : "fixed"}</span>}
    >
      {({ id, describedBy }) => (
        <div class="seed">
          <input
            id={id}
            type="text"
            inputMode="numeric"
            placeholder="random"
            value={typed.value ?? seed ?? ""}
            aria-describedby={describedBy}
            onInput={(event) => (typed.value = event.currentTarget.value)}
            onChange={take}
            onBlur={take}
          />
          <Button icon="dice" label="Choose a random seed" onClick={() => set(Math.floor(Math.random() * 2 ** 32))} />
          {seed === null ? (
            <Button icon="open" label="Use the last video's seed" disabled={last === null} onClick={() => set(last)} />
          ) : (
            <Button icon="lock" label="A new seed each time" pressed onClick={() => set(null)} />
          )}
        </div>
      )}
    </Field>
  );
}

function NegativePrompt() {
  return (
    <Field label="Negative prompt" problem={problems.value.get("negative_prompt")}>
      {({ id, describedBy }) => (
        <textarea
          id={id}
          rows={2}
          value={value<string>("negative_prompt")}
          aria-describedby={describedBy}
          onInput={(event) => setValue("negative_prompt", event.currentTarget.value)}
        />
      )}
    </Field>
  );
}
