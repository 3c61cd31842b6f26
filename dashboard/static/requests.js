// Asking this dashboard's own server for JSON.

/** A refusal or failure, with one line for the person at the page. */
export class RequestError extends Error {}

/** JSON of `path`; POSTs `body` where there is one. A page that is not logged in goes to the form. */
export async function request(path, body) {
  const options = { cache: "no-store", headers: { "X-Requested-With": "fer-dashboard" } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new RequestError("The dashboard does not answer.");
  }
  if (response.status === 401) {
    location.assign("/login");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new RequestError(answer.error ?? `The dashboard answered ${response.status}.`);
  }
  return answer;
}
