import { useSignal } from "@preact/signals";
import type { ComponentChildren, ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { say } from "../model/toast";

/** A part of the page that is loaded when it is first needed. `meanwhile` takes its place until then. */
export function lazy<P extends object>(load: () => Promise<ComponentType<P>>, meanwhile: ComponentChildren = null): ComponentType<P> {
  return (props: P) => {
    const found = useSignal<{ Part: ComponentType<P> } | null>(null);
    useEffect(() => void load().then((Part) => (found.value = { Part }), () => say("This part of the page could not be loaded. Reload the page.")), []);
    const Part = found.value?.Part;
    return Part ? <Part {...props} /> : <>{meanwhile}</>;
  };
}
