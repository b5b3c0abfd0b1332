"use strict";

// Runs before the explorer, which would take a token, or a place to go to, out of the address of a sign-in.
// There is no sign-in here, so such an address is somebody's trick.
if (location.search || new URLSearchParams(location.hash.slice(1)).has("state")) {
  history.replaceState(null, "", location.pathname);
}

document.addEventListener("DOMContentLoaded", () => {
  const key = document.getElementById("key");
  // The key is kept in this field and nowhere else, and no other one is ever sent.
  document.querySelector("openapi-explorer").addEventListener("request", (event) => {
    const headers = event.detail.request.headers;
    headers.delete("authorization");
    if (key.value) {
      headers.set("authorization", `Bearer ${key.value.trim()}`);
    }
  });
});
