// The login form. Sent by script, because a write needs a header that no plain form can send.

const form = document.getElementById("login");
const error = document.getElementById("login-error");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  error.textContent = "";
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const response = await fetch("/login", {
      method: "POST",
      headers: { "X-Requested-With": "fer-dashboard" },
      body: new URLSearchParams(new FormData(form)),
    });
    if (response.ok) {
      location.assign("/");
      return;
    }
    const answer = await response.json().catch(() => ({}));
    error.textContent =
      response.status === 401
        ? `That is not the ${form.dataset.secret}.`
        : (answer.error ?? "Log-in failed.");
  } catch {
    error.textContent = "The dashboard does not answer.";
  } finally {
    button.disabled = false;
  }
  form.elements.token.select();
});
