import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ago } from "../model/format";
import { findShared, type Shared } from "../server/requests";
import { isStill } from "../model/motion";
import { Icon, Mark } from "./icons";

/** The video of a share link. */
export function SharedVideo({ token }: { token: string }) {
  const found = useSignal<Shared | null>(null);
  const isGone = useSignal(false);
  useEffect(() => {
    found.value = null;
    isGone.value = false;
    findShared(token).then((shared) => (found.value = shared), () => (isGone.value = true));
  }, [token]);
  return (
    <main class="shared">
      <section class="card viewer" aria-label="Video">
        {isGone.value ? (
          <div class="screen empty">
            <Mark />
            <h1>This video is gone</h1>
            <p>Videos are kept for a limited time, and their owners can delete them.</p>
          </div>
        ) : (
          <Content shared={found.value} />
        )}
      </section>
    </main>
  );
}

/** The video of a share link, for a visitor without a key. */
export function Visitor({ token }: { token: string }) {
  return (
    <>
      <header class="header">
        <a class="brand" href="#/">
          <Mark /> <span>Keyreel</span>
        </a>
        <span class="spring" />
        <a class="button quiet" href="#/">
          Sign in
        </a>
      </header>
      <SharedVideo token={token} />
    </>
  );
}

function Content({ shared }: { shared: Shared | null }) {
  if (!shared) return <div class="screen" aria-busy="true" />;
  const { prompt, seed, video } = shared.output;
  return (
    <>
      <h1 class="hidden">A video made with Keyreel</h1>
      <div class="screen">
        <video src={video.url} autoPlay={!isStill()} loop muted playsInline controls aria-label={prompt ?? "The shared video"} />
      </div>
      <p class="said">{prompt}</p>
      <dl class="facts">
        <div>
          <dt>Seed</dt>
          <dd>{seed}</dd>
        </div>
        <div>
          <dt>Made</dt>
          <dd>{ago(shared.created)}</dd>
        </div>
      </dl>
      <div class="actions">
        <a class="button primary" href={video.url} download={`keyreel-${seed}.mp4`}>
          <Icon name="download" /> Download
        </a>
      </div>
    </>
  );
}
