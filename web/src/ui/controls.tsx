import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { Icon, type IconName } from "./icons";

interface ButtonProps {
  readonly icon?: IconName;
  readonly onClick?: (event: MouseEvent) => unknown;
  readonly kind?: "primary" | "quiet" | "danger";
  readonly label?: string;
  readonly disabled?: boolean;
  /** The id of the text that says more, such as why the button is disabled. */
  readonly describedBy?: string;
  readonly pressed?: boolean;
  readonly submits?: boolean;
  readonly children?: ComponentChildren;
}

/** `label` names a button that shows only an icon. */
export function Button({ icon, onClick, kind, label, disabled, describedBy, pressed, submits, children }: ButtonProps) {
  return (
    <button
      type={submits ? "submit" : "button"}
      class={`button ${kind ?? ""} ${children ? "" : "icon-only"}`}
      onClick={onClick}
      disabled={disabled}
      aria-label={label}
      aria-describedby={describedBy}
      aria-pressed={pressed}
      title={label}
    >
      {icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

interface FieldProps {
  readonly label: string;
  readonly problem?: string | null | undefined;
  readonly aside?: ComponentChildren;
  readonly children: (ids: { id: string; describedBy: string | undefined }) => ComponentChildren;
}

/** A label, its control and the problem with its value. */
export function Field({ label, problem, aside, children }: FieldProps) {
  const id = useId();
  return (
    <div class={`field ${problem ? "wrong" : ""}`}>
      <div class="field-head">
        <label for={id}>{label}</label>
        {aside}
      </div>
      {children({ id, describedBy: problem ? `${id}-problem` : undefined })}
      {problem && <Problem id={`${id}-problem`} text={problem} />}
    </div>
  );
}

export function Problem({ id, text }: { id?: string; text: string }) {
  return (
    <p class="problem" id={id} role="alert">
      {text}
    </p>
  );
}

interface NumberProps {
  readonly id: string;
  readonly value: number | null;
  readonly min?: number | undefined;
  readonly max?: number | undefined;
  readonly step?: number;
  readonly placeholder?: string;
  readonly describedBy: string | undefined;
  /** Receives null if the user empties the field. */
  readonly onChange: (value: number | null) => void;
}

/** Keeps the typed text when the page renders again. Calls `onChange` on Enter or when the field loses the focus. */
export function NumberInput({ id, value, describedBy, onChange, ...others }: NumberProps) {
  const typed = useSignal<string | null>(null);
  return (
    <input
      id={id}
      type="number"
      inputMode="decimal"
      {...others}
      value={typed.value ?? value ?? ""}
      aria-describedby={describedBy}
      onInput={(event) => (typed.value = event.currentTarget.value)}
      onChange={({ currentTarget }) => {
        typed.value = null;
        onChange(currentTarget.value === "" ? null : currentTarget.valueAsNumber);
      }}
      onBlur={() => (typed.value = null)}
    />
  );
}

interface SliderProps {
  readonly label: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
  readonly step?: number;
  readonly note?: string;
  readonly problem?: string | null | undefined;
  readonly onChange: (value: number) => void;
}

/** A slider with a number field for exact values. */
export function Slider({ label, value, min, max, step = 1, note, problem, onChange }: SliderProps) {
  const share = `${((Math.min(Math.max(value, min), max) - min) / (max - min || 1)) * 100}%`;
  const set = (chosen: number | null) => {
    if (chosen !== null) onChange(Math.min(max, Math.max(min, chosen)));
  };
  return (
    <Field label={label} problem={problem} aside={note && <span class="note">{note}</span>}>
      {({ id, describedBy }) => (
        <div class="slider">
          <input
            type="range"
            {...{ min, max, step, value }}
            style={{ "--share": share }}
            aria-label={label}
            onInput={(event) => set(event.currentTarget.valueAsNumber)}
          />
          <NumberInput {...{ id, min, max, step, value, describedBy }} onChange={set} />
        </div>
      )}
    </Field>
  );
}

interface ChoiceProps {
  readonly label: string;
  readonly value: string;
  readonly options: readonly string[];
  readonly note?: string;
  readonly problem?: string | null | undefined;
  readonly draw?: (option: string) => ComponentChildren;
  /** What an option is called; by default itself. */
  readonly title?: (option: string) => string;
  readonly onChange: (value: string) => void;
}

export function Choice({ label, value, options, note, problem, draw, title = String, onChange }: ChoiceProps) {
  const name = useId();
  return (
    <fieldset class="choice">
      <legend class="field-head">
        {label} {note && <span class="note">{note}</span>}
      </legend>
      <div class="choices">
        {options.map((option) => (
          <label key={option} class={option === value ? "chosen" : ""}>
            <input type="radio" name={name} checked={option === value} onChange={() => onChange(option)} />
            {draw?.(option)}
            <span>{title(option)}</span>
          </label>
        ))}
      </div>
      {problem && <Problem text={problem} />}
    </fieldset>
  );
}

interface SelectProps {
  readonly label: string;
  readonly value: string;
  readonly options: readonly string[];
  readonly problem?: string | null | undefined;
  readonly onChange: (value: string) => void;
}

export function Select({ label, value, options, problem, onChange }: SelectProps) {
  return (
    <Field label={label} problem={problem}>
      {({ id, describedBy }) => (
        <select id={id} value={value} aria-describedby={describedBy} onChange={(event) => onChange(event.currentTarget.value)}>
          {options.map((option) => (
            <option key={option} value={option}>
              {option}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

interface SwitchProps {
  readonly label: string;
  readonly hint?: string | undefined;
  readonly checked: boolean;
  readonly problem?: string | null | undefined;
  readonly onChange: (checked: boolean) => void;
}

export function Switch({ label, hint, checked, problem, onChange }: SwitchProps) {
  return (
    <div class="switch-row">
      <label class="switch">
        <span>
          {label}
          {hint && <small>{hint}</small>}
        </span>
        <input
          type="checkbox"
          role="switch"
          checked={checked}
          onChange={(event) => onChange(event.currentTarget.checked)}
        />
      </label>
      {problem && <Problem text={problem} />}
    </div>
  );
}

interface FilesProps {
  readonly label: string;
  readonly icon?: IconName;
  readonly accept: string;
  readonly multiple?: boolean;
  readonly onFiles: (files: File[]) => unknown;
}

/** A file input that looks like a button. It stays a real input, so keyboards and screen readers can use it. */
export function FileButton({ label, icon, accept, multiple, onFiles }: FilesProps) {
  return (
    <label class="button file-button">
      {icon && <Icon name={icon} />}
      {label}
      <input
        type="file"
        class="covered"
        accept={accept}
        multiple={multiple}
        onChange={(event) => {
          onFiles([...(event.currentTarget.files ?? [])]);
          event.currentTarget.value = "";
        }}
      />
    </label>
  );
}
