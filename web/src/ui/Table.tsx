import type { ComponentChildren } from "preact";

interface TableProps {
  readonly title: string;
  readonly columns: readonly string[];
  readonly empty: string;
  readonly count: number;
  readonly children: ComponentChildren;
}

export function Table({ title, columns, empty, count, children }: TableProps) {
  return (
    <section class="card" aria-label={title}>
      <h2>{title}</h2>
      {count ? (
        <div class="scrolls" tabIndex={0} role="region" aria-label={`${title}, table`}>
          <table>
            <thead>
              <tr>
                {columns.map((column) => (
                  <th key={column} scope="col">
                    {column}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>{children}</tbody>
          </table>
        </div>
      ) : (
        <p class="hint">{empty}</p>
      )}
    </section>
  );
}
