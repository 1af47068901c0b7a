import { expect, test } from "vitest";
import { describeEnd, describeScopes } from "./scopes";

test("usual scopes are described by their role, and others are listed", () => {
  expect(describeScopes(["read", "submit", "upload"])).toBe("user");
  expect(describeScopes(["operate", "read", "submit", "upload"])).toBe("administrator");
  expect(describeScopes(["read", "submit"])).toBe("only read, submit");
  expect(describeScopes(["operate"])).toBe("only operate");
});

test("a key ends when it is revoked or expires", () => {
  expect(describeEnd({ revoked: null, expires_at: null }, 10)).toBe("never");
  expect(describeEnd({ revoked: 5, expires_at: 20 }, 10)).toBe("revoked");
  expect(describeEnd({ revoked: null, expires_at: 86_400 }, 10)).toBe("1970-01-02");
  expect(describeEnd({ revoked: null, expires_at: 10 }, 10)).toBe("expired");
});
