/** The input fields of the endpoint with their bounds and defaults, read from the server's OpenAPI document. */

export interface Field {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly enum?: readonly string[];
  readonly "x-examples"?: readonly string[];
  readonly $ref?: string;
  readonly items?: { readonly $ref?: string };
}

export interface Schema {
  readonly fields: Record<string, Field>;
  readonly image: Record<string, Field>;
  readonly video: Record<string, Field>;
  readonly lora: Record<string, Field>;
}

interface Document {
  readonly components: { readonly schemas: Record<string, { readonly properties?: Record<string, Field> }> };
  readonly paths: Record<string, Record<string, { requestBody?: { content: Record<string, { schema: Field }> } }>>;
}

export function readSchema(document: Document): Schema {
  const body = Object.values(document.paths).flatMap((path) => path.post?.requestBody ?? [])[0];
  const properties = (ref: string | undefined) =>
    document.components.schemas[ref?.split("/").pop() ?? ""]?.properties ?? {};
  const fields = properties(body?.content["application/json"]?.schema.$ref);
  return {
    fields,
    image: properties(fields.images?.items?.$ref),
    video: properties(fields.videos?.items?.$ref),
    lora: properties(fields.loras?.items?.$ref),
  };
}
